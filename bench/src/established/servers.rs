//! The servers that answer.

use std::net::TcpStream;

use holdfast_lab::{Lab, eventually};

use super::{HTTP, REDIS, literal};
use crate::peers::proxy::Proxy;
use crate::place::Processor;

/// nginx, which answers every request with a word.
pub fn http_server(lab: &Lab) -> anyhow::Result<Proxy> {
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let places = places.map(|name| format!("  {name}_temp_path http/{name};\n")).concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid http/pid;\nerror_log stderr crit;\n\
         events {{ worker_connections 1024; }}\nhttp {{\n  access_log off;\n{places}  \
         keepalive_requests 1000000000;\n  server {{ listen {HTTP}; return 200 holdfast; }}\n}}\n"
    );
    let file = lab.write("http/nginx.conf", text)?;
    let mut command = Processor::Server.of(lab.beside("/usr/sbin/nginx")?)?;
    command.args(["-e", "stderr", "-p"]).arg(lab.directory()).arg("-c").arg(file);
    let server = Proxy::spawn(command, "nginx: run tools/setup")?;
    eventually("nginx to listen", || TcpStream::connect(HTTP))?;
    Ok(server)
}

/// Redis, which keeps nothing.
pub fn redis_server(lab: &Lab) -> anyhow::Result<Proxy> {
    let mut command = Processor::Server.of(lab.beside("redis-server")?)?;
    let port = literal(REDIS).port().to_string();
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(lab.directory());
    let server = Proxy::spawn(command, "redis-server: run tools/setup")?;
    eventually("Redis to listen", || TcpStream::connect(REDIS))?;
    Ok(server)
}
