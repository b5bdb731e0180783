//! The commands that the demo prints: each can be pasted into a shell as it is.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::folder::{DemoMirror, EVERYWHERE, LATEST, MIRRORS, NEWEST, WITH_SPACE};
use super::ports::{Ports, USUAL_RPC};

/// What to try, and what to expect of it.
pub(super) fn text(ports: &Ports) -> String {
    let base = format!("http://127.0.0.1:{}", ports.redirector);
    let [paris, new_york, tokyo] = &MIRRORS;
    let command = command_line(ports);
    let mut text = format!("\nServing on {base} from three mirrors. Try in another terminal:\n");
    let mut example = |title: &str, commands: &[String]| {
        let _ = write!(text, "\n# {title}\n{}\n", commands.join("\n"));
    };

    for mirror in [paris, new_york, tokyo] {
        let city = mirror.city;
        example(&format!("A client in {city} is sent to {city}"), &[curl("-si", mirror, &base, EVERYWHERE)]);
    }
    example(
        "The newest image has not reached Tokyo yet, so nobody is sent there for it; links are resolved",
        &[curl("-si", tokyo, &base, NEWEST), curl("-si", tokyo, &base, LATEST)],
    );
    example("A name with a space, downloaded", &[curl("-sL", paris, &base, &WITH_SPACE.replace(' ', "%20"))]);
    let json = "-s -H 'Accept: application/json'";
    example("The same decision as JSON", &[curl(json, paris, &base, &format!("{EVERYWHERE}?pretty"))]);
    example(
        "All mirrors with their weights, and why the others were left out",
        &[curl(json, tokyo, &base, &format!("{NEWEST}?mirrorlist&pretty"))],
    );
    example("A file that is not in the repository", &[curl("-si", paris, &base, "no-such-file")]);
    let after = curl("-si", tokyo, &base, EVERYWHERE);
    example(
        "Disable a mirror: its clients are sent to the next one",
        &[format!("{command} disable tokyo"), after.clone()],
    );
    example("Enable it again", &[format!("{command} enable tokyo"), after]);
    example("The mirrors and their states", &[format!("{command} list")]);
    let _ = write!(text, "\nPages for a browser: {base}/{EVERYWHERE}?mirrorlist and {base}/?mirrorstats\n");
    text.push_str("\nCtrl-C ends everything that the demo started and removes its files.");
    text
}

/// A request of a client near `mirror`: loopback is a trusted proxy, so its word on the client's address is believed.
fn curl(options: &str, mirror: &DemoMirror, base: &str, target: &str) -> String {
    format!("curl {options} -H 'X-Forwarded-For: {}' '{base}/{target}'", mirror.client)
}

/// This program as one would type it here, with the port of the RPC where it is not the usual one.
fn command_line(ports: &Ports) -> String {
    let program = std::env::current_exe().map_or_else(|_| PathBuf::from("mirrorbits"), |path| shorten(&path));
    let program = quote(&program.display().to_string());
    if ports.rpc == USUAL_RPC { program } else { format!("{program} -p {}", ports.rpc) }
}

/// Relative to the working directory where it is below that.
fn shorten(path: &Path) -> PathBuf {
    let below = std::env::current_dir().ok().and_then(|folder| path.strip_prefix(folder).ok());
    below.map_or_else(|| path.to_owned(), |below| Path::new(".").join(below))
}

/// Quotes for a shell what needs it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quote("target/release/mirrorbits"), "target/release/mirrorbits");
        assert_eq!(quote("/home/me & you/it's"), r"'/home/me & you/it'\''s'");
    }
}
