//! Templates that are tried, loaded, passed over and refused.

use std::fs;

use mb_core::foreign_text::must_be_escaped;
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// As many mirrors as a page is promised to show.
const MOST_MIRRORS: usize = 3_000;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, source) in files {
        fs::write(folder.path().join(name), source).unwrap();
    }
    folder
}

fn load(files: &[(&str, &str)]) -> Result<Loaded, String> {
    let folder = folder(files);
    Templates::load(Some(folder.path()))
        .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn built_in_templates_show_every_sample() {
    let built_in = Templates::built_in();
    try_out(&built_in.environment).unwrap();
    for page in Page::ALL {
        let html = built_in.render(page, sample::full(page)).unwrap();
        assert!(html.starts_with("<!DOCTYPE html>") && html.trim_end().ends_with("</html>"), "{html}");
        for outside in ["<script", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside} brings in what is not built in");
        }
    }
}

/// The limit is for templates that never end, not for large networks of mirrors: an own template may do three times as much.
#[test]
fn pages_of_many_mirrors_are_made() {
    for page in Page::ALL {
        let mut document = sample::full(page);
        let few = document["MirrorList"].as_array().unwrap().clone();
        document["MirrorList"] = few.into_iter().cycle().take(MOST_MIRRORS).collect();
        let template = Templates::built_in();
        let template = template.environment.get_template(page.template()).unwrap();
        let rendered = template.render_captured(Serde(&document)).unwrap();
        let used = rendered.state().fuel_levels().map(|(used, _)| used);
        assert!(used.is_some_and(|used| used < FUEL / 3), "{used:?}");
        assert!(rendered.output().matches("<th scope=\"row\"").count() >= MOST_MIRRORS);
    }
}

#[test]
fn a_file_replaces_the_template_of_its_name() {
    let own = "{% extends \"base.html\" %}{% block content %}{% include \"part.html\" %}{% endblock %}";
    let loaded = load(&[("mirrorlist.html", own), ("part.html", "own {{ IP }}"), ("notes.txt", "{{ nothing")]).unwrap();
    assert_eq!(loaded.notices, [""; 0]);
    let html = loaded.templates.render(Page::MirrorList, json!({"IP": "<b>"})).unwrap();
    assert!(html.contains("own &lt;b&gt;") && html.contains("<!DOCTYPE html>"), "{html}");
    let other = loaded.templates.render(Page::MirrorStatistics, sample::full(Page::MirrorStatistics)).unwrap();
    assert_eq!(
        other,
        Templates::built_in().render(Page::MirrorStatistics, sample::full(Page::MirrorStatistics)).unwrap()
    );
}

#[test]
fn a_mistake_is_told_with_its_line() {
    for (source, said) in [
        ("one\n{% if %}", "mirrorlist.html:2: syntax error"),
        ("one\n\n{{ FileInfo.Pth }}", "mirrorlist.html:3: undefined value"),
        ("{% for mirror in MirrorList %}\n{{ mirror.Nmae|bytes }}{% endfor %}", "mirrorlist.html:2: undefined value"),
        ("{{ IP|shout }}", "mirrorlist.html:1: unknown filter"),
        ("{% include \"none.html\" %}", "mirrorlist.html:1: template not found"),
        (
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
            "mirrorlist.html:1: engine ran out",
        ),
    ] {
        let error = load(&[("mirrorlist.html", source)]).unwrap_err();
        assert!(error.contains(said) && error.contains("docs/templates.md"), "{error}");
    }
    let error =
        load(&[("mirrorlist.html", "{% include \"part.html\" %}"), ("part.html", "\n{{ 1 / 0 }}")]).unwrap_err();
    assert!(error.contains("part.html:2"), "where it happens, not where that is included: {error}");
    let error = load(&[("unused.html", "{{ (")]).unwrap_err();
    assert!(error.contains("unused.html:1"), "{error}");
}

#[test]
fn what_may_be_missing_needs_no_care() {
    let list =
        "{{ FileInfo.Sha1 }}{{ Fallback }}{% for mirror in ExcludedList %}{{ mirror.ExcludeReason }}{% endfor %}";
    let all = "{{ Today.Downloads }}{{ Total.Bytes|bytes }}\
               {% for mirror in MirrorList %}{{ mirror.Today.Bytes|bytes }}{{ mirror.DownReason }}{% endfor %}";
    load(&[("mirrorlist.html", list), ("mirrorstats.html", all)]).unwrap();
}

#[test]
fn go_templates_and_missing_folders_are_passed_over() {
    let loaded = load(&[("mirrorlist.html", "{{define \"title\"}}{{.FileInfo.Path}}{{end}}")]).unwrap();
    assert!(loaded.notices[0].contains("mirrorlist.html is a Go template"), "{:?}", loaded.notices);
    assert!(loaded.templates.render(Page::MirrorList, sample::full(Page::MirrorList)).unwrap().contains("<!DOCTYPE"));

    let loaded = Templates::load(Some(Path::new("/nonexistent/templates"))).unwrap();
    assert!(loaded.notices[0].contains("/nonexistent/templates"), "{:?}", loaded.notices);
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let folder = folder(&[]);
    fs::write(folder.path().join("base.html"), b"\xff").unwrap();
    let error = Templates::load(Some(folder.path())).unwrap_err().to_string();
    assert!(error.contains("base.html cannot be read"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a mirror or a client is called, it stays text.
    #[test]
    fn text_never_becomes_markup(text in "[<>\"'&/a-z: =]{1,30}") {
        let marked = format!("<{text}>");
        for page in Page::ALL {
            let with = |text: &str| {
                let mut document = sample::full(page);
                replace_texts(&mut document, text);
                Templates::built_in().render(page, &document).unwrap()
            };
            let (html, harmless) = (with(&marked), with("harmless"));
            prop_assert!(!html.contains(&marked), "{}", html);
            for mark in ["<", ">", "\""] {
                prop_assert_eq!(html.matches(mark).count(), harmless.matches(mark).count(), "{}", html);
            }
        }
    }
}

/// A mirror's name with a bidirectional control turned around what stood after it on the page.
#[test]
fn control_characters_and_text_direction_are_escaped_on_every_page() {
    let own =
        "{% for mirror in MirrorList %}{{ mirror.Name }}{{ mirror.SponsorName|upper }}{{ mirror.Name|e }}{% endfor %}";
    let own = load(&[("mirrorlist.html", own), ("mirrorstats.html", own)]).unwrap().templates;
    for templates in [Templates::built_in(), own] {
        for page in Page::ALL {
            let mut document = sample::full(page);
            replace_texts(&mut document, "a\u{202e}b\u{2066}\x1b[2J\0\u{85}<c\nd");
            let html = templates.render(page, &document).unwrap();
            let raw = html.chars().find(|c| must_be_escaped(*c) && *c != '\n');
            assert_eq!(raw, None, "{html}");
            assert!(html.contains("\\u{202e}") && html.contains("&lt;") && html.contains('\n'), "{html}");
        }
    }
}

/// Puts `text` in the place of every text but the times, and the states, which are words of ours.
fn replace_texts(value: &mut serde_json::Value, text: &str) {
    match value {
        serde_json::Value::Object(members) => {
            let ours = ["Time", "ModTime", "State", "StateSince", "LastSync", "LastSuccessfulSync", "LastModTime"];
            let others = members.iter_mut().filter(|(name, _)| !ours.contains(&name.as_str()));
            others.for_each(|(_, value)| replace_texts(value, text));
        }
        serde_json::Value::Array(elements) => elements.iter_mut().for_each(|element| replace_texts(element, text)),
        serde_json::Value::String(string) => *string = text.to_owned(),
        _ => {}
    }
}
