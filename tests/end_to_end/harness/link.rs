//! A link between an agent and everything else: network namespaces in a row, so that what is lost is lost on the way and not at
//! the agent's own hands, as a switch or a cable would lose it.
//!
//! ```text
//! this host (near) ── router: nft drops, tc slows ── the agent's namespace (far)
//! ```

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::harness::probe::{is_root, program};

/// What a link does to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing passes.
    Cut,
    /// What the agent sends is lost; what it is sent arrives.
    FromAgent,
    /// What the agent is sent is lost; what it sends arrives.
    ToAgent,
    /// So many of a hundred packets are lost, both ways.
    Loss(u8),
}

/// A link; it ends with the value.
pub(crate) struct Link {
    number: u8,
    router: String,
    agent: String,
}

fn run(program_name: &str, words: &[&str], input: &str) -> Result<(), String> {
    let path = program(program_name).ok_or_else(|| format!("{program_name} is not installed"))?;
    let mut child = Command::new(path)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program_name}: {error}"))?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().map_err(|error| format!("{program_name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    if output.status.success() { Ok(()) } else { Err(format!("{program_name} {}: {said}", words.join(" "))) }
}

impl Link {
    /// Makes one.
    ///
    /// # Errors
    /// What this machine lacks, or refuses.
    pub(crate) fn make() -> Result<Self, String> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        if !is_root() {
            return Err("needs root, to make network namespaces".into());
        }
        // Several runs on one machine take different networks.
        let own = (std::process::id() % 25) as u8 * 10;
        let number = own + NEXT.fetch_add(1, Ordering::SeqCst) % 10;
        let link = Link { number, router: format!("beeacon-r{number}"), agent: format!("beeacon-a{number}") };
        link.tear_down();
        link.build()?;
        Ok(link)
    }

    fn build(&self) -> Result<(), String> {
        let Link { number, router, agent } = self;
        let ip = |words: &str| run("ip", &words.split(' ').collect::<Vec<_>>(), "");
        for name in [router, agent] {
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        ip(&format!("link add bn{number} type veth peer name near netns {router}"))?;
        ip(&format!("-n {router} link add far type veth peer name uplink netns {agent}"))?;
        ip(&format!("addr add 10.231.{number}.1/30 dev bn{number}"))?;
        ip(&format!("link set bn{number} up"))?;
        ip(&format!("-n {router} addr add 10.231.{number}.2/30 dev near"))?;
        ip(&format!("-n {router} addr add 10.232.{number}.2/30 dev far"))?;
        ip(&format!("-n {agent} addr add 10.232.{number}.1/30 dev uplink"))?;
        for (name, device) in [(router, "near"), (router, "far"), (agent, "uplink")] {
            ip(&format!("-n {name} link set {device} up"))?;
        }
        ip(&format!("-n {agent} route add default via 10.232.{number}.2"))?;
        ip(&format!("route add 10.232.{number}.0/30 via 10.231.{number}.2"))?;
        let words = ["netns", "exec", router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
        run("ip", &words, "")?;
        // A machine whose kernel lacks a part of nft or tc says so here and not in the midst of a story.
        self.impair(Some(Fault::Loss(1)))?;
        self.slow(Some(1_000))?;
        self.slow(None)?;
        self.impair(None)
    }

    fn tear_down(&self) {
        for name in [&self.router, &self.agent] {
            run("ip", &["netns", "del", name], "").ok();
        }
        run("ip", &["link", "del", &format!("bn{}", self.number)], "").ok();
    }

    /// The address of this host at the link.
    pub(crate) fn near_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 231, self.number, 1)
    }

    /// What starts a program behind the link.
    pub(crate) fn words(&self) -> Vec<String> {
        let nsenter = program("nsenter").expect("nsenter comes with util-linux, as mount does");
        vec![nsenter.to_str().unwrap().to_owned(), format!("--net=/run/netns/{}", self.agent)]
    }

    /// Lets a fault be, or none.
    ///
    /// # Errors
    /// What nft says.
    pub(crate) fn impair(&self, fault: Option<Fault>) -> Result<(), String> {
        let rule = match fault {
            None => String::new(),
            Some(Fault::Cut) => "drop".into(),
            Some(Fault::FromAgent) => "iifname \"far\" drop".into(),
            Some(Fault::ToAgent) => "iifname \"near\" drop".into(),
            Some(Fault::Loss(hundredths)) => format!("numgen random mod 100 < {hundredths} drop"),
        };
        let rules = format!(
            "table inet lab\ndelete table inet lab\ntable inet lab {{\n chain way {{\n  \
             type filter hook forward priority 0; policy accept;\n  {rule}\n }}\n}}\n"
        );
        run("ip", &["netns", "exec", &self.router, "nft", "-f", "-"], &rules)
    }

    /// Lets so many kilobits a second pass each way, or as many as can.
    ///
    /// # Errors
    /// What tc says.
    pub(crate) fn slow(&self, kilobits: Option<u32>) -> Result<(), String> {
        for device in ["near", "far"] {
            let exec = ["netns", "exec", &self.router, "tc", "qdisc"];
            match kilobits {
                Some(kilobits) => {
                    let rate = format!("{kilobits}kbit");
                    let words = [
                        "replace", "dev", device, "root", "tbf", "rate", &rate, "burst", "32kb", "latency",
                        "300ms",
                    ];
                    run("ip", &[exec.as_slice(), words.as_slice()].concat(), "")?;
                }
                None => run("ip", &[exec.as_slice(), &["del", "dev", device, "root"]].concat(), "")?,
            }
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tear_down();
    }
}
