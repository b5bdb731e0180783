//! `add`, `remove`, `enable` and `disable`.

use std::io::Write as _;

use clap::Args;

use super::connection::Daemon;
use super::error::CommandError;
use super::question::confirm;
use crate::control::rpc::proto::{ChangeStatusRequest, Mirror, MirrorIdRequest};

/// A command on one mirror.
#[derive(Args, Debug)]
pub(super) struct OneMirror {
    /// Name of the mirror, or a part of it that fits no other
    identifier: String,
}

impl OneMirror {
    /// Enables or disables the mirror.
    pub(super) async fn change_status(self, daemon: &mut Daemon, enabled: bool) -> Result<(), CommandError> {
        let mirror = daemon.find(&self.identifier).await?;
        daemon.rpc.change_status(ChangeStatusRequest { id: mirror.id, enabled }).await?;
        let outcome = if enabled { "enabled" } else { "disabled" };
        writeln!(super::terminal::stderr(), "Mirror '{}' {outcome} successfully", mirror.name)?;
        Ok(())
    }
}

/// Options of `add`.
#[derive(Args, Debug)]
pub(super) struct Add {
    /// Base of all downloads; without a scheme when both http and https are served
    #[arg(long, value_name = "URL")]
    http: String,
    /// rsync:// or rsyncs:// URL to scan
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    rsync: String,
    /// ftp:// URL to scan
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    ftp: String,
    /// Name of the sponsor
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    sponsor_name: String,
    /// Home page of the sponsor
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    sponsor_url: String,
    /// Logo of the sponsor
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    sponsor_logo: String,
    /// Name of the administrator
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    admin_name: String,
    /// E-mail address of the administrator
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    admin_email: String,
    /// Text to show to the public
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    custom_data: String,
    /// Serve clients of its continent only
    #[arg(long)]
    continent_only: bool,
    /// Serve clients of its countries only
    #[arg(long)]
    country_only: bool,
    /// Serve clients of its autonomous system only
    #[arg(long)]
    as_only: bool,
    /// Bonus or malus on the selection, in percent
    #[arg(long, value_name = "N", default_value_t = 0)]
    score: i32,
    /// Notes of the operator
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
    /// Name of the mirror, without spaces
    identifier: String,
}

impl Add {
    /// Adds the mirror and tells where it was found to be.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        if self.http.is_empty() {
            return Err(CommandError::Usage("a mirror needs an HTTP URL: give -http URL"));
        }
        if self.identifier.contains(char::is_whitespace) {
            return Err(CommandError::Usage("the name of a mirror cannot contain spaces"));
        }
        let name = self.identifier.clone();
        let added = daemon.rpc.add_mirror(self.into_message()).await?.into_inner();
        let mut people = super::terminal::stderr();
        for warning in &added.warnings {
            writeln!(people, "{warning}")?;
        }
        if !added.country.is_empty() {
            let mut out = super::terminal::stdout();
            writeln!(out, "Mirror location:")?;
            writeln!(out, "Latitude:  {:.4}", added.latitude)?;
            writeln!(out, "Longitude: {:.4}", added.longitude)?;
            writeln!(out, "Continent: {}", added.continent)?;
            writeln!(out, "Country:   {}", added.country)?;
            writeln!(out, "ASN:       {}", added.asn)?;
        }
        writeln!(people, "Mirror '{name}' added successfully")?;
        writeln!(people, "Enable this mirror using\n  $ mirrorbits enable {name}")?;
        Ok(())
    }

    fn into_message(self) -> Mirror {
        Mirror {
            name: self.identifier,
            http_url: self.http,
            rsync_url: self.rsync,
            ftp_url: self.ftp,
            sponsor_name: self.sponsor_name,
            sponsor_url: self.sponsor_url,
            sponsor_logo_url: self.sponsor_logo,
            admin_name: self.admin_name,
            admin_email: self.admin_email,
            custom_data: self.custom_data,
            continent_only: self.continent_only,
            country_only: self.country_only,
            as_only: self.as_only,
            score: self.score,
            comment: self.comment,
            ..Mirror::default()
        }
    }
}

/// Options of `remove`.
#[derive(Args, Debug)]
pub(super) struct Remove {
    /// Do not ask
    #[arg(short = 'f')]
    force: bool,
    /// Name of the mirror, or a part of it that fits no other
    identifier: String,
}

impl Remove {
    /// Removes the mirror, after a question unless told not to ask.
    pub(super) async fn run(self, daemon: &mut Daemon) -> Result<(), CommandError> {
        let mirror = daemon.find(&self.identifier).await?;
        if !self.force {
            confirm(&format!("Remove the mirror '{}' for good?", mirror.name))?;
        }
        daemon.rpc.remove_mirror(MirrorIdRequest { id: mirror.id }).await?;
        writeln!(super::terminal::stderr(), "Mirror '{}' removed successfully", mirror.name)?;
        Ok(())
    }
}
