//! Tells the templates of Mirrorbits from ours. Its are Go templates (package `text/template`), whose actions stand between the
//! same braces as our expressions.

/// Whether `source` is a Go template.
pub fn is_go_template(source: &str) -> bool {
    // Go has no such brackets, and our templates may quote the other's: for scripts that fill in pages likewise.
    if source.contains("{%") {
        return false;
    }
    source.split("{{").skip(1).any(|rest| is_action(rest.strip_prefix('-').unwrap_or(rest).trim_start()))
}

/// Whether `text` goes on like an action of Go and cannot be an expression of ours.
fn is_action(text: &str) -> bool {
    if text.starts_with(['.', '$']) || text.starts_with("/*") {
        return true;
    }
    let (word, rest) = text.split_at(text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len()));
    let argument = rest.trim_start();
    match word {
        "end" | "else" => ["}}", "-}}", "if "].iter().any(|end| argument.starts_with(end)),
        "template" | "define" | "block" => argument.starts_with(['"', '`']),
        // A parenthesis may as well belong to our function `range`.
        "if" | "range" | "with" => {
            argument.len() < rest.len()
                && argument.starts_with(|c: char| c.is_ascii_alphabetic() || ['.', '$', '"', '`'].contains(&c))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn actions_of_go_are_recognised() {
        for source in [
            "{{define \"title\"}}Mirrors{{end}}",
            "{{ template \"base\" . }}",
            "<b>{{.FileInfo.Path}}</b>",
            "{{- .Path -}}",
            "{{range $i, $m := .MirrorList}}",
            "{{range .MirrorList}}",
            "{{if eq .A .B}}",
            "{{if and .A .B}}",
            "{{with $x := 1}}",
            "{{$x}}",
            "{{/* a comment */}}",
            "{{block \"a\" .}}",
            "x {{end}} y",
            "{{ else if .A }}",
        ] {
            assert!(is_go_template(source), "{source}");
        }
    }

    #[test]
    fn ours_are_not_taken_for_go() {
        for source in [
            "",
            "plain",
            "{{ FileInfo.Path }}",
            "{{FileInfo.Path|e}}",
            "{{ range(3) }}",
            "{{ range (3) if x else 2 }}{% if x %}{% endif %}",
            "{{ endpoint }}",
            "{{ template.name }}",
            "{{ -1 }}",
            "{{ \"{{.Path}}\" }}{% set x = 1 %}",
            "{% raw %}{{.Path}}{% endraw %}",
            "{# {{ comment #}",
        ] {
            assert!(!is_go_template(source), "{source}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-{}. $/*a-z\"é%]{0,40}") {
            is_go_template(&text);
        }

        #[test]
        fn blanks_do_not_matter(before in "[ \n-]?[ \n]{0,3}", member in "[A-Z][a-z]{1,5}") {
            let go = format!("{{{{{before}.{member}}}}}");
            let ours = format!("{{{{ {} {member}}}}}", before.trim_matches('-'));
            prop_assert!(is_go_template(&go));
            prop_assert!(!is_go_template(&ours));
        }
    }
}
