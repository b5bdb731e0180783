//! The configuration file: any text is read or refused with a message that shows no secret and not the whole file.

use std::path::Path;

use mb_core::config;

/// Stands for a password. Upper-case letters and a digit, so that no message of ours has it by chance.
const SECRET: &str = "S3CRETVALUE";
/// Longest message for each line of the file, and for any file.
const MESSAGE_BYTES: usize = 600;

/// The text, with a password put behind it, or in front of it if it begins with `<`.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let secret = format!("RedisPassword: {SECRET}\n");
    let text = match text.strip_prefix('<') {
        Some(rest) => format!("{secret}{rest}"),
        None => format!("{text}\n{secret}"),
    };
    match config::parse(&text, Path::new("fuzz.conf")) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                check_message(&warning.to_string(), &text);
            }
        }
        Err(error) => check_message(&error.to_string(), &text),
    }
}

fn check_message(message: &str, text: &str) {
    assert!(!message.contains(SECRET), "a message shows a password: {message:?}");
    let most = MESSAGE_BYTES * (text.lines().count() + 1);
    assert!(message.len() <= most, "a message of {} bytes", message.len());
    let is_control = |c: char| c.is_control() && c != '\n';
    assert!(!message.contains(is_control), "a message with control characters: {message:?}");
}
