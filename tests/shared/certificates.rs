//! Certificates, made anew by `openssl` for one test. Included by the tests of every room that speaks TLS.

use std::path::Path;
use std::process::Command;

/// Makes `NAME.crt` and `NAME.key` in a directory: a certificate for hosts such as `IP:127.0.0.1,DNS:localhost`, signed by itself or by an
/// authority, which is made where it is not there yet.
pub(crate) fn make(directory: &Path, name: &str, hosts: &str, authority: Option<&str>) {
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let files = |name: &str| format!("-keyout {name}.key -out {name}.crt -subj /CN={name}");
    let mut signed = String::new();
    if let Some(authority) = authority {
        if !directory.join(format!("{authority}.crt")).exists() {
            openssl(directory, &format!("{new} {}", files(authority)));
        }
        signed = format!("-CA {authority}.crt -CAkey {authority}.key");
    }
    let extensions = format!("-addext subjectAltName={hosts} -addext basicConstraints=critical,CA:FALSE");
    openssl(directory, &format!("{new} {signed} {} {extensions}", files(name)));
}

fn openssl(directory: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split_whitespace()).current_dir(directory);
    let ran = command.output().expect("openssl is installed");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
