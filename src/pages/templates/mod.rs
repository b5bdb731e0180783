//! The templates of the pages: built in, or replaced by files of the folder that `Templates` names.
//!
//! They are Jinja templates, see `docs/templates.md`. All of them are loaded at once, and tried on sample documents before
//! any is used: a mistake is found when the configuration is loaded and not when somebody looks.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Once};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Output, State, UndefinedBehavior, escape_formatter};
use serde::Serialize;

use super::{Page, filters, sample};

mod go;

/// The built-in templates: file name and content.
const BUILT_IN: [(&str, &str); 3] = [
    ("base.html", include_str!("base.html")),
    ("mirrorlist.html", include_str!("mirrorlist.html")),
    ("mirrorstats.html", include_str!("mirrorstats.html")),
];

/// What files of templates end with; others in the folder are none.
const EXTENSION: &str = "html";
/// How many steps the making of a page may take, so that a template that never ends is stopped. What it makes is paid for, too,
/// 64 bytes a step, so that it cannot take more than 320 MB. The built-in page of 3,000 mirrors takes 1.3 million.
const FUEL: u64 = 5_000_000;

/// Why templates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file or the folder cannot be read.
    #[error("Templates: {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A template is wrong.
    #[error("Templates: {}:{line}: {reason}; docs/templates.md tells what a template can use", path.display())]
    Invalid {
        /// The file; of a built-in template, its name.
        path: PathBuf,
        /// The line, from 1; 0 when it is not known.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Templates that were loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The templates.
    pub templates: Arc<Templates>,
    /// For the operator: what was passed over.
    pub notices: Vec<String>,
}

/// The templates in use.
pub struct Templates {
    environment: Environment<'static>,
    /// A failure is reported.
    failed: Once,
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.environment.templates().map(|(name, _)| name.to_owned())).finish()
    }
}

impl Templates {
    /// The built-in ones.
    pub fn built_in() -> Arc<Templates> {
        static BUILT_IN: LazyLock<Arc<Templates>> = LazyLock::new(|| {
            let environment = environment().unwrap_or_else(|error| panic!("a built-in template: {error:#}"));
            Arc::new(Templates { environment, failed: Once::new() })
        });
        BUILT_IN.clone()
    }

    /// The built-in ones, but for those that are replaced by files in `folder`, and others that these use.
    ///
    /// A folder that is not there is passed over, and so is a file that was written for Mirrorbits: the configuration of an
    /// installation of it is to work.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn load(folder: Option<&Path>) -> Result<Loaded, TemplateError> {
        let Some(folder) = folder else {
            return Ok(Loaded { templates: Templates::built_in(), notices: Vec::new() });
        };
        let mut notices = Vec::new();
        let own = read(folder, &mut notices)?;
        let invalid = |error| invalid(error, folder, &own);
        let mut environment = environment().map_err(invalid)?;
        for (name, source) in &own {
            environment.add_template_owned(name.clone(), source.clone()).map_err(invalid)?;
        }
        try_out(&environment).map_err(invalid)?;
        Ok(Loaded { templates: Arc::new(Templates { environment, failed: Once::new() }), notices })
    }

    /// The HTML of `page` with `members`; `None` when its template fails, which is reported.
    pub fn render(&self, page: Page, members: impl Serialize) -> Option<String> {
        let rendered = render(&self.environment, page, members);
        rendered
            .inspect_err(|error| {
                let report = || tracing::error!("{}: {error:#}; the page is not shown", page.template());
                self.failed.call_once(report);
            })
            .ok()
    }
}

/// The built-in templates and all that a template can use.
fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    // Many members are left out when there is nothing to tell.
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(escape);
    filters::add(&mut environment);
    for (name, source) in BUILT_IN {
        environment.add_template(name, source)?;
    }
    Ok(environment)
}

/// Writes a value as text of HTML, in templates of operators too.
fn escape(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    escape_formatter(out, state, &filters::harmless(value.clone()))
}

fn render(environment: &Environment<'_>, page: Page, members: impl Serialize) -> Result<String, minijinja::Error> {
    environment.get_template(page.template())?.render(Serde(members))
}

/// The templates in `folder` by file name.
fn read(folder: &Path, notices: &mut Vec<String>) -> Result<BTreeMap<String, String>, TemplateError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| TemplateError::Unreadable { path, source }
    };
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            notices.push(format!("Templates: there is no {}: the built-in pages are shown", folder.display()));
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(unreadable(folder)(error)),
    };
    let mut sources = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(unreadable(folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if path.extension().is_none_or(|extension| extension != EXTENSION) || path.is_dir() {
            continue;
        }
        let source = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
        if go::is_go_template(&source) {
            notices.push(format!(
                "Templates: {} is a Go template, as Mirrorbits has them, and is passed over: the built-in page is shown; \
                 docs/templates.md tells how to write an own one",
                path.display()
            ));
        } else {
            sources.insert(name.to_owned(), source);
        }
    }
    Ok(sources)
}

/// Renders each page as complete as it can be, where a member that is not there is a mistake, and as bare as it can be.
fn try_out(environment: &Environment<'static>) -> Result<(), minijinja::Error> {
    let mut strict = environment.clone();
    strict.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    strict.set_debug(true);
    for page in Page::ALL {
        render(&strict, page, sample::full(page))?;
        render(environment, page, sample::bare(page))?;
    }
    Ok(())
}

/// The error of a template in `folder`, told by where it is.
fn invalid(error: minijinja::Error, folder: &Path, own: &BTreeMap<String, String>) -> TemplateError {
    // The innermost one tells of the template in which it happened, those around it of what that was included in.
    let mut innermost = &error;
    while let Some(source) = innermost.source().and_then(|source| source.downcast_ref::<minijinja::Error>()) {
        innermost = source;
    }
    let name = innermost.name().or(error.name()).unwrap_or_default();
    let path = if own.contains_key(name) { folder.join(name) } else { PathBuf::from(name) };
    let reason = match innermost.detail() {
        Some(detail) => format!("{}: {detail}", innermost.kind()),
        None => innermost.kind().to_string(),
    };
    TemplateError::Invalid { path, line: innermost.line().or(error.line()).unwrap_or_default(), reason }
}

#[cfg(test)]
mod tests;
