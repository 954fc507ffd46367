//! What people use instead, each as they would: a rule of nftables, HAProxy, nginx.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use holdfast_lab::{Lab, eventually};

/// A proxy that runs beside the governed cgroup. Dropping it ends the process.
#[derive(Debug)]
pub struct Proxy(Child);

impl Proxy {
    /// HAProxy in TCP mode, from `listen` to `backend`.
    pub fn haproxy(lab: &Lab, listen: SocketAddr, backend: SocketAddr) -> anyhow::Result<Self> {
        let text = format!(
            "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
             timeout client 1m\n  timeout server 1m\nlisten bench\n  bind {listen}\n  \
             server backend {backend}\n"
        );
        let file = lab.write("haproxy.cfg", text)?;
        let mut command = lab.beside("/usr/sbin/haproxy")?;
        // In the foreground.
        command.arg("-db").arg("-f").arg(file);
        Self::start(command, "haproxy", listen)
    }

    /// nginx with its stream module.
    pub fn nginx(lab: &Lab, listen: SocketAddr, backend: SocketAddr) -> anyhow::Result<Self> {
        let text = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\n\
             master_process off;\npid nginx.pid;\nerror_log stderr crit;\n\
             events {{ worker_connections 1024; }}\n\
             stream {{ server {{ listen {listen}; proxy_pass {backend}; }} }}\n"
        );
        let file = lab.write("nginx.conf", text)?;
        let mut command = lab.beside("/usr/sbin/nginx")?;
        command.args(["-e", "stderr", "-p"]).arg(lab.directory()).arg("-c").arg(file);
        Self::start(command, "nginx and libnginx-mod-stream", listen)
    }

    fn start(mut command: Command, package: &str, listen: SocketAddr) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("apt-get install {package}"))?;
        let proxy = Self(child);
        eventually(&format!("{package} to listen"), || TcpStream::connect(listen))?;
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail only when it has ended and been reaped, which nobody else does.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The table of a rule that translates an address as kube-proxy does. While any such rule is there,
/// every connection of the network namespace is tracked: it is made for its turn and removed after.
#[derive(Debug)]
pub struct Translation(());

impl Translation {
    /// From `listen` to `backend`.
    pub fn insert(listen: SocketAddr, backend: SocketAddr) -> anyhow::Result<Self> {
        let (address, port) = (listen.ip(), listen.port());
        nft(&format!(
            "table ip bench {{ chain output {{ type nat hook output priority -100\n \
             ip daddr {address} tcp dport {port} dnat to {backend}\n }}\n }}"
        ))?;
        Ok(Self(()))
    }

    /// Removes it.
    pub fn remove(self) -> anyhow::Result<()> {
        nft("delete table ip bench")
    }
}

fn nft(rules: &str) -> anyhow::Result<()> {
    let mut command = Command::new("/usr/sbin/nft");
    let status = command.arg(rules).status().context("apt-get install nftables")?;
    ensure!(status.success(), "nft refuses: {rules}");
    Ok(())
}
