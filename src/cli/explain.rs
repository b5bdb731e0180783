//! `explain`: which mirrors a client would be sent to, and why not to the others.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;

use clap::Args;

use super::connection::Daemon;
use super::error::CommandError;
use super::table::aligned;
use crate::control::rpc::proto::{ExplainReply, ExplainRequest};

/// Options of `explain`.
#[derive(Args, Debug)]
pub(super) struct Explain {
    /// Address of the client; without it, where this command runs
    #[arg(long, value_name = "ADDR")]
    from: Option<IpAddr>,
    /// Path of the file, as it follows the host in a URL, but not percent-encoded
    path: String,
}

impl Explain {
    /// Prints the mirrors with their figures and reasons.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        let from = self.from.map(|address| address.to_string()).unwrap_or_default();
        let reply = daemon.rpc.explain(ExplainRequest { path: self.path, from }).await?.into_inner();
        write!(super::terminal::stdout(), "{}", text(&reply))?;
        Ok(())
    }
}

fn text(reply: &ExplainReply) -> String {
    let mut text = format!("{} for {} ({})\n\n", reply.path, reply.from, place(reply));
    if reply.accepted.is_empty() {
        text.push_str("No mirror can be used: the fallbacks answer, if there are any\n");
    } else {
        let mut rows = vec![["ACCEPTED", "WEIGHT", "SCORE", "DISTANCE", "URL"].map(str::to_owned).to_vec()];
        rows.extend(reply.accepted.iter().map(|mirror| {
            vec![
                mirror.name.clone(),
                format!("{:.2}%", mirror.weight),
                mirror.score.to_string(),
                format!("{:.0} km", mirror.distance),
                mirror.url.clone(),
            ]
        }));
        text.push_str(&aligned(&rows));
    }
    if !reply.refused.is_empty() {
        let mut rows = vec![vec!["REFUSED", "REASON"]];
        rows.extend(reply.refused.iter().map(|mirror| vec![mirror.name.as_str(), &mirror.reason]));
        let _ = write!(text, "\n{}", aligned(&rows));
    }
    text
}

/// Country, continent and autonomous system, as far as they are known.
fn place(reply: &ExplainReply) -> String {
    let mut known: Vec<String> =
        [&reply.country_code, &reply.continent_code].into_iter().filter(|code| !code.is_empty()).cloned().collect();
    if reply.asnum != 0 {
        known.push(format!("AS{}", reply.asnum));
    }
    if known.is_empty() { "place unknown".to_owned() } else { known.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::rpc::proto::ExplainedMirror;

    fn reply() -> ExplainReply {
        ExplainReply {
            path: "/a.iso".into(),
            from: "192.0.2.1".into(),
            country_code: "FR".into(),
            continent_code: "EU".into(),
            asnum: 64496,
            accepted: vec![ExplainedMirror {
                name: "paris".into(),
                url: "http://paris/".into(),
                distance: 1.4,
                score: 19_000,
                weight: 100.0,
                ..ExplainedMirror::default()
            }],
            refused: vec![ExplainedMirror {
                name: "tokyo".into(),
                reason: "Disabled".into(),
                ..ExplainedMirror::default()
            }],
        }
    }

    #[test]
    fn mirrors_are_told_with_figures_and_reasons() {
        assert_eq!(
            text(&reply()),
            "/a.iso for 192.0.2.1 (FR, EU, AS64496)\n\n\
             ACCEPTED\tWEIGHT\tSCORE\tDISTANCE\tURL\n\
             paris\t\t100.00%\t19000\t1 km\t\thttp://paris/\n\n\
             REFUSED\tREASON\n\
             tokyo\tDisabled\n"
        );
    }

    #[test]
    fn what_is_not_known_or_not_there_is_said() {
        let nobody = ExplainReply { path: "/a".into(), from: "::1".into(), ..ExplainReply::default() };
        assert_eq!(
            text(&nobody),
            "/a for ::1 (place unknown)\n\nNo mirror can be used: the fallbacks answer, if there are any\n"
        );
    }
}
