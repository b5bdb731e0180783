//! `apply`: the mirrors as a file lists them.
//!
//! The whole file is checked before the first change. The daemon makes all changes or none. One of an earlier release makes one
//! after the other, and each is reported at once, so that a failure on the way leaves no doubt about what is done. Applying
//! the same file again changes nothing.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use mb_core::mirror::{Mirror, MirrorId, MirrorSettings, MirrorState};
use prost::Message as _;
use tonic::Code;

use super::connection::Daemon;
use super::error::CommandError;
use crate::control::mirror_documents::{self, Listed};
use crate::control::mirror_fields;
use crate::control::rpc::proto::{ApplyMirrorsRequest, ChangeStatusRequest, MirrorIdRequest};
use crate::control::rpc::{settings, wire};

/// Stands for standard input in place of a file.
const STANDARD_INPUT: &str = "-";

/// Bytes of a message to the daemon, which takes up to 4 MiB.
const PART_BYTES: usize = 512 << 10;

/// Options of `apply`.
#[derive(Args, Debug)]
pub(super) struct Apply {
    /// Print the differences and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove the mirrors that the file does not list
    #[arg(long)]
    prune: bool,
    /// YAML list of mirrors with the keys that `show` prints and `Comment`; what is left out stays as it is. - reads from
    /// standard input
    file: PathBuf,
}

impl Apply {
    /// Adds, changes and removes mirrors until they are as listed.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        let refuse = |reason: String| CommandError::File { file: self.file.clone(), reason };
        let listed = mirror_documents::read_list(&read(&self.file)?).map_err(|error| refuse(error.to_string()))?;
        if listed.is_empty() && self.prune {
            return Err(refuse("lists no mirror: with -prune this would remove all of them".to_owned()));
        }
        let present = daemon.mirrors().await?;
        let plan = Plan::make(&listed, present, self.prune).map_err(refuse)?;
        if self.dry_run || plan.changes.is_empty() || make_all(&plan.changes, daemon).await? {
            for change in &plan.changes {
                write!(super::terminal::stdout(), "{}", change.describe())?;
            }
        } else {
            // A daemon of an earlier release.
            for change in &plan.changes {
                change.make(daemon).await?;
                write!(super::terminal::stdout(), "{}", change.describe())?;
            }
        }
        let outcome = plan.summary();
        let note = if self.dry_run { " (a dry run: nothing was changed)" } else { "" };
        writeln!(super::terminal::stderr(), "{outcome}{note}")?;
        Ok(())
    }
}

fn read(file: &Path) -> Result<String, CommandError> {
    let mut text = String::new();
    let read = if file == Path::new(STANDARD_INPUT) {
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|error| CommandError::File { file: file.to_owned(), reason: error.to_string() })
}

/// Has all of `changes` made together. Returns whether the daemon can do that; if not, nothing was done.
async fn make_all(changes: &[Change], daemon: &mut Daemon) -> Result<bool, CommandError> {
    match daemon.rpc.apply_mirrors(tokio_stream::iter(parts(changes))).await {
        Ok(reply) => {
            for warning in reply.into_inner().warnings {
                writeln!(super::terminal::stderr(), "{warning}")?;
            }
            Ok(true)
        }
        Err(status) if status.code() == Code::Unimplemented => Ok(false),
        Err(status) => Err(status.into()),
    }
}

/// The messages of `changes`, each small enough for every daemon.
fn parts(changes: &[Change]) -> Vec<ApplyMirrorsRequest> {
    let mut parts = vec![ApplyMirrorsRequest::default()];
    let mut bytes = 0;
    for change in changes {
        let change = change.to_wire();
        let size = change.encoded_len();
        if bytes > 0 && bytes + size > PART_BYTES {
            parts.push(ApplyMirrorsRequest::default());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.put.extend(change.put);
            part.remove.extend(change.remove);
        }
    }
    parts
}

/// What has to happen to one mirror.
#[derive(Debug, PartialEq)]
enum Change {
    Add(Box<Mirror>),
    Update { old: Box<Mirror>, new: Box<Mirror> },
    Remove(Box<Mirror>),
}

impl Change {
    fn to_wire(&self) -> ApplyMirrorsRequest {
        match self {
            Change::Add(mirror) | Change::Update { new: mirror, .. } => {
                ApplyMirrorsRequest { put: vec![wire::mirror_to_wire(mirror)], remove: Vec::new() }
            }
            Change::Remove(mirror) => {
                ApplyMirrorsRequest { put: Vec::new(), remove: vec![wire::id_to_wire(mirror.id)] }
            }
        }
    }

    async fn make(&self, daemon: &mut Daemon) -> Result<(), CommandError> {
        match self {
            Change::Add(mirror) => {
                let reply = daemon.rpc.add_mirror(wire::mirror_to_wire(mirror)).await?.into_inner();
                for warning in reply.warnings {
                    writeln!(super::terminal::stderr(), "{}: {warning}", mirror.settings.name)?;
                }
                if mirror.state.enabled {
                    let id = daemon.find(&mirror.settings.name).await?.id;
                    daemon.rpc.change_status(ChangeStatusRequest { id, enabled: true }).await?;
                }
            }
            Change::Update { new, .. } => {
                daemon.rpc.update_mirror(wire::mirror_to_wire(new)).await?;
            }
            Change::Remove(mirror) => {
                daemon.rpc.remove_mirror(MirrorIdRequest { id: wire::id_to_wire(mirror.id) }).await?;
            }
        }
        Ok(())
    }

    /// A line with the name and what happens, then the difference.
    fn describe(&self) -> String {
        match self {
            Change::Add(mirror) => {
                let mut text = format!("{}: added\n", mirror.settings.name);
                for line in mirror_fields::difference(&nothing(), mirror).lines().filter(|line| line.starts_with('+')) {
                    let _ = writeln!(text, "{line}");
                }
                text
            }
            Change::Update { old, new } => {
                format!("{}: changed\n{}", old.settings.name, mirror_fields::difference(old, new))
            }
            Change::Remove(mirror) => format!("{}: removed\n", mirror.settings.name),
        }
    }
}

/// A mirror with nothing set; its id is that of mirrors that are to be added.
fn nothing() -> Mirror {
    Mirror { id: MirrorId(0), settings: MirrorSettings::default(), state: MirrorState::default() }
}

/// The mirror that `entry` and what is there already make. The error tells the mistake with its line.
fn wanted(entry: &Listed, old: Option<&Mirror>) -> Result<Mirror, String> {
    let mut new = old.cloned().unwrap_or_else(nothing);
    entry.apply_to(&mut new).map_err(|error| format!("{}: {error}", entry.name))?;
    // In the form in which it will be stored, so that only real differences count.
    new.settings =
        settings::accept(new.settings).map_err(|error| format!("{}: line {}: {error}", entry.name, entry.line))?;
    Ok(new)
}

/// What has to happen, in order.
#[derive(Debug)]
struct Plan {
    changes: Vec<Change>,
    unchanged: usize,
}

impl Plan {
    /// What leads from the mirrors that are `present` to those that are `listed`. The error tells all that cannot be stored.
    fn make(listed: &[Listed], present: Vec<Mirror>, prune: bool) -> Result<Plan, String> {
        let mut plan = Plan { changes: Vec::new(), unchanged: 0 };
        let by_name: HashMap<&str, &Mirror> =
            present.iter().rev().map(|mirror| (mirror.settings.name.as_str(), mirror)).collect();
        let mut mistakes = Vec::new();
        for entry in listed {
            let old = by_name.get(entry.name.as_str()).copied();
            match wanted(entry, old) {
                Err(mistake) => mistakes.push(mistake),
                Ok(new) => match old {
                    None => plan.changes.push(Change::Add(Box::new(new))),
                    Some(old) if *old == new => plan.unchanged += 1,
                    Some(old) => {
                        plan.changes.push(Change::Update { old: Box::new(old.clone()), new: Box::new(new) });
                    }
                },
            }
        }
        if !mistakes.is_empty() {
            return Err(mirror_documents::shown_mistakes(&mistakes));
        }
        if prune {
            let names: HashSet<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
            let gone = present.into_iter().filter(|mirror| !names.contains(mirror.settings.name.as_str()));
            plan.changes.extend(gone.map(|mirror| Change::Remove(Box::new(mirror))));
        }
        Ok(plan)
    }

    fn summary(&self) -> String {
        let count = |kind: fn(&Change) -> bool| self.changes.iter().filter(|change| kind(change)).count();
        format!(
            "{} added, {} changed, {} removed, {} as listed",
            count(|change| matches!(change, Change::Add(_))),
            count(|change| matches!(change, Change::Update { .. })),
            count(|change| matches!(change, Change::Remove(_))),
            self.unchanged
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present() -> Vec<Mirror> {
        ["paris", "tokyo"]
            .into_iter()
            .zip(1..)
            .map(|(name, id)| Mirror {
                id: MirrorId(id),
                settings: MirrorSettings {
                    name: name.into(),
                    http_url: format!("http://{name}.example/"),
                    score: 5,
                    ..MirrorSettings::default()
                },
                state: MirrorState::default(),
            })
            .collect()
    }

    fn plan(yaml: &str, prune: bool) -> Result<Plan, String> {
        Plan::make(&mirror_documents::read_list(yaml).unwrap(), present(), prune)
    }

    fn told(plan: &Plan) -> String {
        plan.changes.iter().map(Change::describe).collect()
    }

    #[test]
    fn only_what_differs_is_changed() {
        let plan = plan(
            "- Name: paris\n  HttpURL: http://paris.example\n- Name: tokyo\n  Score: 7\n- Name: oslo\n  HttpURL: https://oslo.example\n",
            false,
        )
        .unwrap();
        assert_eq!(
            told(&plan),
            "tokyo: changed\n- Score: 5\n+ Score: 7\noslo: added\n+ Name: oslo\n+ HttpURL: https://oslo.example/\n"
        );
        assert_eq!(plan.summary(), "1 added, 1 changed, 0 removed, 1 as listed");
    }

    #[test]
    fn what_is_not_listed_is_removed_only_when_asked_for() {
        let list = "- Name: paris\n";
        assert_eq!(told(&plan(list, false).unwrap()), "");
        assert_eq!(told(&plan(list, true).unwrap()), "tokyo: removed\n");
    }

    #[test]
    fn one_mistake_stops_everything() {
        let error = plan("- Name: paris\n  Score: 1\n- Name: oslo\n  HttpURL: gopher://x\n", false).unwrap_err();
        assert!(error.starts_with("oslo: line 3: HttpURL: \"gopher://x/\" must start with"), "{error}");
        let error = plan("- Name: paris\n  Score: much\n", false).unwrap_err();
        assert!(error.starts_with("paris: line 2: Score"), "{error}");
    }
}
