//! The forms of network addresses in the configuration.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::ListenAddress;
use super::keys::Checked;
use crate::secret::SecretUrl;

/// Longest path of a unix socket: `sun_path` of unix(7) less its closing NUL.
const UNIX_PATH_MAX: usize = 107;

/// Splits `host:port`; the host may be empty, an IPv6 address must be in brackets.
pub(super) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = !host.contains([':', '[', ']', '/', ' ', '@']);
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten()?;
    (plain || bracketed).then_some((host, port))
}

/// `host:port` or `:port`, kept as it is.
pub(super) fn host_port(text: &str) -> Checked<String> {
    match host_and_port(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("must be host:port or :port, with an IPv6 address in brackets".to_owned()),
    }
}

/// `host:port`, `:port` or `unix:/path`.
pub(super) fn listen_address(text: &str) -> Checked<ListenAddress> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = absolute(path)?;
        return if path.as_os_str().len() <= UNIX_PATH_MAX {
            Ok(ListenAddress::Unix(path))
        } else {
            Err(format!("must have a path of at most {UNIX_PATH_MAX} bytes after unix:"))
        };
    }
    let form = "must be host:port, :port or unix:/path, with an IPv6 address in brackets";
    match host_and_port(text) {
        None => Err(form.to_owned()),
        Some(("", port)) => Ok(ListenAddress::AnyTcp(port)),
        Some((host, port)) => resolved(host.trim_matches(['[', ']']), port).map(ListenAddress::Tcp),
    }
}

/// The first IPv4 address of a host, else its first address, as Go listens.
fn resolved(host: &str, port: u16) -> Checked<SocketAddr> {
    let addresses: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|cause| format!("must name a host of this machine; looking it up failed: {cause}"))?
        .collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| "must name a host of this machine; it has no address".to_owned())
}

/// `host:port`, or a `redis://` or `rediss://` URL.
pub(super) fn redis_address(text: &str) -> Checked<SecretUrl> {
    let url = ["redis://", "rediss://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let good = match url {
        Some(rest) => !rest.is_empty() && !rest.contains(char::is_whitespace),
        None => host_and_port(text).is_some_and(|(host, _)| !host.is_empty()),
    };
    if good { Ok(text.to_owned().into()) } else { Err("must be host:port, or a rediss:// URL for TLS".to_owned()) }
}

/// A network in CIDR form, or one address.
pub(super) fn network(text: &str) -> Checked<IpNet> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse::<IpNet>().map(|network| network.trunc()))
        .map_err(|_| "must be an address or a network, as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32".to_owned())
}

/// An `http://` or `https://` URL, or one without a scheme, ending in a slash.
pub(super) fn base_url(text: &str) -> Checked<String> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let host = rest.split('/').next().unwrap_or_default();
    if !matches!(scheme, None | Some("http" | "https")) || host.is_empty() || rest.contains(char::is_whitespace) {
        return Err("must be a URL, as https://host/path/ or host/path/ for both HTTP and HTTPS".to_owned());
    }
    Ok(if text.ends_with('/') { text.to_owned() } else { format!("{text}/") })
}

/// A path, made absolute from the working directory.
pub(super) fn absolute(text: &str) -> Checked<PathBuf> {
    if text.is_empty() {
        return Err("must be a path".to_owned());
    }
    std::path::absolute(Path::new(text)).map_err(|cause| format!("must be a path; making it absolute failed: {cause}"))
}
