//! Takes the password of `-P` out of the process list: what that shows are the arguments in this
//! process's own memory, which the kernel reads anew each time. It can be seen for a moment after
//! the start; `-a` leaves none.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;

use mb_core::secret::Secret;

/// Overwrites `password` wherever it is an argument. Where the kernel does not let it, the password
/// stays to be seen.
pub(super) fn hide(password: &Secret) {
    if !password.is_empty() {
        // The command goes on all the same: it was given this way on purpose.
        let _ = overwrite(password.expose().as_bytes());
    }
}

fn overwrite(password: &[u8]) -> io::Result<()> {
    let start = arguments_start(&fs::read_to_string("/proc/self/stat")?).ok_or(io::ErrorKind::Unsupported)?;
    let arguments = fs::read("/proc/self/cmdline")?;
    let memory = File::options().write(true).open("/proc/self/mem")?;
    for place in places(&arguments, password) {
        memory.write_all_at(&vec![b'*'; password.len()], start.saturating_add(place as u64))?;
    }
    Ok(())
}

/// The address of the first argument: field 48 of proc_pid_stat(5), `arg_start`. The second one, a
/// name in parentheses, may have spaces.
fn arguments_start(stat: &str) -> Option<u64> {
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_ascii_whitespace().nth(48 - 3)?.parse().ok().filter(|start| *start > 0)
}

/// Where `password` begins in `arguments`, each of which ends with a zero byte: as one of them, or
/// run together with `-P`.
fn places(arguments: &[u8], password: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut at = 0;
    for argument in arguments.split(|byte| *byte == 0) {
        let head = argument.strip_suffix(password);
        let is_password = |head: &[u8]| {
            head.is_empty() || (head.starts_with(b"-") && (head.ends_with(b"P") || head.ends_with(b"P=")))
        };
        if let Some(head) = head.filter(|head| is_password(head)) {
            places.push(at + head.len());
        }
        at += argument.len() + 1;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_found_as_it_can_be_typed() {
        for (arguments, expected) in [
            ("mirrorbits\0-P\0open\0list\0", &[14][..]),
            ("mirrorbits\0-Popen\0list\0", &[13]),
            ("mirrorbits\0-P=open\0--P=open\0", &[14, 23]),
            ("mirrorbits\0-aPopen\0list\0", &[14]),
            ("mirrorbits\0list\0reopen\0http://open\0-xopen\0", &[]),
            ("", &[]),
        ] {
            assert_eq!(places(arguments.as_bytes(), b"open"), expected, "{arguments:?}");
        }
    }

    #[test]
    fn the_arguments_begin_where_the_kernel_says() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(arguments_start(&stat).is_some_and(|start| start > 4096), "{stat}");
        assert_eq!(arguments_start("1 (a) b) S 1"), None);
    }
}
