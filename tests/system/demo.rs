//! `mirrorbits demo` as a newcomer meets it: started, its printed commands pasted into a shell, ended by Ctrl-C.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::eventually;
use crate::harness::program::Program;
use crate::harness::redirector::indexer_program;

/// The printed commands below the title that starts with `title`.
fn commands<'a>(output: &'a str, title: &str) -> Vec<&'a str> {
    let lines = output.lines().skip_while(|line| !line.strip_prefix("# ").is_some_and(|rest| rest.starts_with(title)));
    let commands: Vec<&str> = lines.skip(1).take_while(|line| !line.is_empty()).collect();
    assert!(!commands.is_empty(), "no example `{title}` in:\n{output}");
    commands
}

/// What a printed command prints.
fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("sh");
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).expect("output in UTF-8")
}

/// Processes in whose command line `folder` stands: all that the demo starts are told of it.
fn processes_of(folder: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let command_lines = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    command_lines.filter(|line| line.contains(folder)).map(|line| line.replace('\0', " ")).collect()
}

#[test]
fn printed_commands_do_what_is_said_and_ctrl_c_leaves_nothing() {
    indexer_program();
    let logs = tempfile::tempdir().expect("temporary folder");
    let mut demo = Program::start("demo", Command::new(env!("CARGO_BIN_EXE_mirrorbits")).arg("demo"), logs.path());
    eventually("the demo's examples", || {
        demo.assert_running();
        let output = demo.output();
        if output.contains("Ctrl-C ends") { Ok(()) } else { Err(output) }
    });
    let output = demo.output();
    let folder = output.lines().find_map(|line| line.strip_prefix("The demo lives in ")).expect("the folder");
    let folder = folder.split_whitespace().next().expect("the folder");
    assert!(Path::new(folder).is_dir(), "{folder}");

    for (city, network) in [("Paris", "127.33."), ("New York", "127.1."), ("Tokyo", "127.81.")] {
        let answer = run(commands(&output, &format!("A client in {city} "))[0]);
        assert!(answer.starts_with("HTTP/1.1 302 "), "{answer}");
        assert!(answer.contains(&format!("\r\nLocation: http://{network}")), "{city}: {answer}");
    }
    for command in commands(&output, "The newest image") {
        let answer = run(command);
        assert!(answer.starts_with("HTTP/1.1 302 ") && answer.contains("/images/demo-1.1.iso\r\n"), "{answer}");
        assert!(!answer.contains("127.81."), "Tokyo does not have it: {answer}");
    }
    assert_eq!(run(commands(&output, "A name with a space")[0]).len(), 600);
    let document: serde_json::Value =
        serde_json::from_str(&run(commands(&output, "The same decision as JSON")[0])).expect("JSON");
    assert_eq!(document["MirrorList"][0]["Name"], "paris");
    let list: serde_json::Value = serde_json::from_str(&run(commands(&output, "All mirrors")[0])).expect("JSON");
    assert_eq!(list["MirrorList"].as_array().map(Vec::len), Some(2), "{list}");
    assert!(run(commands(&output, "A file that is not")[0]).starts_with("HTTP/1.1 404 "));

    let disable = commands(&output, "Disable a mirror");
    run(disable[0]);
    eventually("clients in Tokyo are sent elsewhere", || {
        let answer = run(disable[1]);
        if answer.starts_with("HTTP/1.1 302 ") && !answer.contains("127.81.") { Ok(()) } else { Err(answer) }
    });
    assert!(run(commands(&output, "The mirrors and their states")[0]).contains("disabled"));
    let enable = commands(&output, "Enable it again");
    run(enable[0]);
    eventually("clients in Tokyo are sent there again", || {
        let answer = run(enable[1]);
        if answer.contains("Location: http://127.81.") { Ok(()) } else { Err(answer) }
    });

    let running = processes_of(folder);
    for program in ["rsync", "nginx", "mirrorbits", "mb-indexer"] {
        assert!(running.iter().any(|line| line.contains(program)), "{program} is not among {running:#?}");
    }
    demo.signal(Signal::INT);
    let status = demo.wait();
    assert!(status.success(), "{status}: {}", demo.output());
    assert_eq!(processes_of(folder), Vec::<String>::new());
    assert!(!Path::new(folder).exists(), "{folder} is left");
}
