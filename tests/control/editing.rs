//! Commands that change many settings at once: `edit`, `set`, `apply`, `geoupdate`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::server::{Ended, Server};

fn server_with_mirror() -> Server {
    let server = Server::start("");
    server.succeed(&["add", "-http=http://192.0.2.1/", "-comment", "first\nsecond", "paris"]);
    server
}

/// Runs `edit` with `EDITOR`, and temporary files in a folder of their own.
fn edit(server: &Server, editor: &str) -> Ended {
    let temporary = temporary(server);
    fs::create_dir_all(&temporary).unwrap();
    let mut command = server.command(&["edit", "paris"]);
    Ended::of(command.env("EDITOR", editor).env("TMPDIR", temporary).output().unwrap())
}

fn temporary(server: &Server) -> PathBuf {
    server.state_dir().join("tmp")
}

/// What `edit` left behind.
fn kept(server: &Server) -> Vec<PathBuf> {
    fs::read_dir(temporary(server)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn an_editor_is_run_by_the_shell_as_it_is_given() {
    let server = server_with_mirror();
    let editors = [
        // As scripts have it, with a space that is not quoted.
        ("sed -i s/^Score:.*/Score: 5/", "- Score: 0\n+ Score: 5\n"),
        ("sed -i 's/^Score:.*/Score: 6/'", "- Score: 5\n+ Score: 6\n"),
        ("change() { sed -i s/^Score:.*/Score:\\ 7/ \"$1\"; }; change", "- Score: 6\n+ Score: 7\n"),
        ("sed -i '$ s/second/third/'", "- first\n- second\n+ first\n+ third\n"),
    ];
    for (editor, difference) in editors {
        let ended = edit(&server, editor);
        assert_eq!((ended.status, ended.out.as_str()), (0, difference), "{editor}: {ended:?}");
        assert_eq!(ended.err, "Mirror 'paris' edited successfully\n");
    }
    assert_eq!(server.published()[0].settings.score, 7);
    assert_eq!(kept(&server), [] as [PathBuf; 0]);
}

#[test]
fn an_unchanged_file_changes_nothing() {
    let server = server_with_mirror();
    let ended = edit(&server, "true");
    assert_eq!((ended.status, ended.out.as_str()), (0, ""));
    assert!(ended.err.contains("nothing was changed"), "{ended:?}");
    let ended = edit(&server, "false");
    assert_eq!(ended.status, 1);
    assert!(ended.err.contains("the editor `false` failed: exit status: 1"), "{ended:?}");
    assert_eq!(kept(&server), [] as [PathBuf; 0]);
    assert!(!server.succeed(&["logs", "paris"]).contains("edited"));
}

/// Whatever the reason, what somebody wrote for half an hour is still there.
#[test]
fn what_cannot_be_stored_is_kept() {
    let server = server_with_mirror();
    server.succeed(&["add", "-http=http://192.0.2.2/", "tokyo"]);
    let mistakes = [
        ("sed -i 's/^Score:.*/Score: much/'", "Score: \"much\" is not allowed; give a whole number"),
        ("sed -i 's/^Score:.*/Score: [/'", "line "),
        ("sed -i 's/^Name:.*/Name: tokyo/'", "name already taken"),
        ("sed -i s,^HttpURL:.*,HttpURL:\\ gopher://x,", "HttpURL"),
        ("change() { echo 'Note: mine' >> \"$1\"; false; }; change", "failed: exit status: 1"),
    ];
    for (editor, reason) in mistakes {
        let ended = edit(&server, editor);
        assert_eq!((ended.status, ended.out.as_str()), (1, ""), "{editor}: {ended:?}");
        assert!(ended.err.contains(reason), "{editor}: {ended:?}");
        let [file] = &kept(&server)[..] else { panic!("{editor}: {ended:?}") };
        assert!(ended.err.contains(&format!("kept in {}", file.display())), "{ended:?}");
        let text = fs::read_to_string(file).unwrap();
        assert!(
            text.contains("much")
                || text.contains("[")
                || text.contains("tokyo")
                || text.contains("gopher")
                || text.contains("mine")
        );
        fs::remove_file(file).unwrap();
    }
    assert_eq!(server.published()[0].settings.name, "paris");
}

#[test]
fn on_a_terminal_a_mistake_may_be_corrected() {
    let server = server_with_mirror();
    let editor = server.state_dir().join("editor");
    let script = "if grep -q much \"$1\"; then new=8; else new=much; fi; sed -i \"s/^Score:.*/Score: $new/\" \"$1\"";
    write_program(&editor, script);
    // `script` gives the command a terminal.
    let edit = |answer: &str| {
        fs::create_dir_all(temporary(&server)).unwrap();
        let line = format!("{:?}", server.command(&["edit", "paris"])).replace('"', "'");
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("EDITOR", &editor).env("TMPDIR", temporary(&server));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        Ended::of(child.wait_with_output().unwrap())
    };
    let ended = edit("what?\ny\n");
    assert_eq!(ended.status, 0, "{ended:?}");
    assert_eq!(ended.out.matches("Retry? [Y/n]").count(), 2, "{ended:?}");
    assert!(ended.out.contains("+ Score: 8"), "{ended:?}");
    assert_eq!(kept(&server), [] as [PathBuf; 0]);

    let ended = edit("n\n");
    assert_eq!(ended.status, 1, "{ended:?}");
    let [file] = &kept(&server)[..] else { panic!("{ended:?}") };
    assert!(ended.out.contains(&format!("nothing was changed\r\nWhat you wrote is kept in {}", file.display())));
    assert_eq!(server.published()[0].settings.score, 8);
}

#[test]
fn without_editor_the_usual_ones_are_looked_for() {
    let server = server_with_mirror();
    let programs = server.state_dir().join("bin");
    fs::create_dir(&programs).unwrap();
    let run = || {
        let mut command = server.command(&["edit", "paris"]);
        let path = format!("{}:/nonexistent", programs.display());
        Ended::of(command.env_remove("EDITOR").env("PATH", path).output().unwrap())
    };
    assert!(run().err.contains("set the environment variable EDITOR"));

    // `sh` is needed to run an editor at all.
    std::os::unix::fs::symlink("/bin/sh", programs.join("sh")).unwrap();
    write_program(&programs.join("vi"), "echo 'Score: 9' > \"$1\"");
    let ended = run();
    assert_eq!((ended.status, ended.out.as_str()), (0, "- Score: 0\n+ Score: 9\n"), "{ended:?}");
}

fn write_program(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_comment_is_set_as_other_keys_are() {
    let server = server_with_mirror();
    assert_eq!(server.succeed(&["set", "paris", "comment=new"]), "- first\n- second\n+ new\n");
    assert!(server.succeed(&["show", "paris"]).ends_with("#####\nnew\n"));
}

#[test]
fn mirrors_are_made_as_a_file_lists_them() {
    let server = server_with_mirror();
    server.succeed(&["add", "-http=http://192.0.2.2/", "tokyo"]);
    let file = server.state_dir().join("mirrors.yaml");
    let file = file.to_str().unwrap();
    fs::write(
        file,
        "- Name: paris\n  Score: 3\n- Name: oslo\n  HttpURL: https://192.0.2.3\n  CountryCodes: NO\n  Enabled: true\n",
    )
    .unwrap();
    let expected = "paris: changed\n- Score: 0\n+ Score: 3\noslo: added\n+ Name: oslo\n+ HttpURL: https://192.0.2.3/\n\
                    + CountryCodes: \"NO\"\n+ Enabled: true\n";
    let names = || {
        let mut names: Vec<String> = server.published().into_iter().map(|mirror| mirror.settings.name).collect();
        names.sort();
        names
    };

    let dry = server.run(&["apply", file, "-dry-run", "-prune"]);
    assert_eq!((dry.status, dry.out), (0, format!("{expected}tokyo: removed\n")));
    assert_eq!(dry.err, "1 added, 1 changed, 1 removed, 0 as listed (a dry run: nothing was changed)\n");
    assert_eq!(names(), ["paris", "tokyo"]);

    assert_eq!(server.succeed(&["apply", file]), expected);
    assert_eq!(names(), ["oslo", "paris", "tokyo"]);
    let oslo = server.published().into_iter().find(|mirror| mirror.settings.name == "oslo").unwrap();
    assert!(oslo.state.enabled);
    assert_eq!(oslo.settings.country_codes, "NO", "what the file says wins over the geo databases");

    let again = server.run(&["apply", file]);
    assert_eq!((again.out.as_str(), again.err.as_str()), ("", "0 added, 0 changed, 0 removed, 2 as listed\n"));
    assert_eq!(server.succeed(&["apply", "-prune", file]), "tokyo: removed\n");
    assert_eq!(names(), ["oslo", "paris"]);
}

#[test]
fn a_file_with_a_mistake_changes_nothing() {
    let server = server_with_mirror();
    let file = server.state_dir().join("mirrors.yaml");
    let apply = |text: &str| {
        fs::write(&file, text).unwrap();
        server.fail(&["apply", "-prune", file.to_str().unwrap()])
    };
    assert!(
        apply("- Name: paris\n  Score: 3\n- Name: oslo\n")
            .contains("oslo: line 3: HttpURL: is empty: a mirror needs an HTTP URL")
    );
    assert!(apply("- Name: paris\n  Colour: red\n").contains("line 2: unknown key: the keys are"));
    assert!(apply("").contains("this would remove all of them"));
    assert!(server.fail(&["apply", "/nonexistent.yaml"]).starts_with("/nonexistent.yaml: No such file"));
    assert_eq!(server.published().len(), 1);
    assert_eq!(server.published()[0].settings.score, 0);
}

#[test]
fn a_mirror_is_located_again_when_confirmed() {
    let server = server_with_mirror();
    let ended = server.run(&["geoupdate", "paris"]);
    assert_eq!((ended.status, ended.out.as_str()), (0, ""));
    assert!(ended.err.contains("up to date"), "{ended:?}");

    server.succeed(&["set", "paris", "Latitude=1", "CountryCodes=JP"]);
    let difference = "- Latitude: 1\n+ Latitude: 48.8566\n- CountryCodes: JP\n+ CountryCodes: FR\n";
    let answer = |text: &str| {
        let mut command = server.command(&["geoupdate", "paris"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        Ended::of(child.wait_with_output().unwrap())
    };
    let declined = answer("n\n");
    assert_eq!((declined.status, declined.out.as_str()), (1, difference), "{declined:?}");
    assert_eq!(server.published()[0].settings.country_codes, "JP");
    assert_eq!(answer("y\n").status, 0);
    assert_eq!(server.published()[0].settings.country_codes, "FR");

    server.succeed(&["set", "paris", "ASNum=1"]);
    assert_eq!(server.succeed(&["geoupdate", "-f", "paris"]), "- ASNum: 1\n+ ASNum: 64496\n");
}
