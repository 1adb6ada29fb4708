//! A small disk of its own: ext4 in a file.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::docker::unmount_below;

/// A disk of a few MiB; it ends with the value.
pub(crate) struct SmallDisk {
    pub(crate) path: PathBuf,
    image: PathBuf,
}

impl SmallDisk {
    /// Makes and mounts one below `folder`; nothing where this machine does not allow that.
    pub(crate) fn mount(folder: &Path, mebibytes: u64) -> Option<Self> {
        let image = folder.join("disk.img");
        let path = folder.join("disk");
        std::fs::create_dir(&path).unwrap();
        std::fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        let run = |program: &str, words: &[&str]| {
            Command::new(program).args(words).output().is_ok_and(|o| o.status.success())
        };
        let name = image.to_str().unwrap();
        let made = run("mkfs.ext4", &["-q", "-F", "-m", "0", name])
            && run("mount", &["-o", "loop", name, path.to_str().unwrap()]);
        made.then_some(SmallDisk { path, image })
    }

    /// Unmounts it; everything is in the file then.
    pub(crate) fn unmount(self) -> PathBuf {
        let status = Command::new("umount").arg(&self.path).status();
        assert!(status.is_ok_and(|status| status.success()), "umount {}", self.path.display());
        self.image.clone()
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        let state = rustix::fs::statvfs(&self.path).unwrap();
        state.f_bavail * state.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount_below(&self.path);
    }
}
