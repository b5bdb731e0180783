//! Finding a mirror by what the operator types: its name, or a part of it that fits no other.

/// Which mirrors a name fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'m, M> {
    /// None.
    None,
    /// This one.
    One(&'m M),
    /// These, in the order in which they were given: the operator has to be more precise.
    Several(Vec<&'m M>),
}

/// Finds what `wanted` names among `mirrors`, whose names `name_of` tells.
///
/// A mirror of exactly this name wins, else those whose name is this but for upper and lower case, else those whose name
/// contains it in whatever case. An empty `wanted` fits none.
pub fn find_by_name<'m, M>(mirrors: &'m [M], name_of: impl Fn(&M) -> &str, wanted: &str) -> Found<'m, M> {
    if wanted.is_empty() {
        return Found::None;
    }
    if let Some(mirror) = mirrors.iter().find(|mirror| name_of(mirror) == wanted) {
        return Found::One(mirror);
    }
    let wanted = wanted.to_lowercase();
    let full = mirrors.iter().filter(|mirror| name_of(mirror).to_lowercase() == wanted);
    let mut fitting: Vec<&M> = full.collect();
    if fitting.is_empty() {
        fitting.extend(mirrors.iter().filter(|mirror| name_of(mirror).to_lowercase().contains(&wanted)));
    }
    match fitting.as_slice() {
        [] => Found::None,
        [mirror] => Found::One(mirror),
        _ => Found::Several(fitting),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["paris.example", "PARIS.example.org", "tokyo", "Tokyo", "newyork"];

    fn find(wanted: &str) -> Found<'static, &'static str> {
        find_by_name(&NAMES, |name| name, wanted)
    }

    #[test]
    fn a_full_name_wins_over_parts_and_case() {
        assert_eq!(find("paris.example"), Found::One(&"paris.example"));
        assert_eq!(find("Paris.Example"), Found::One(&"paris.example"));
        assert_eq!(find("tokyo"), Found::One(&"tokyo"));
    }

    #[test]
    fn a_part_must_fit_one_mirror_only() {
        assert_eq!(find("YORK"), Found::One(&"newyork"));
        assert_eq!(find(".org"), Found::One(&"PARIS.example.org"));
        assert_eq!(find("paris"), Found::Several(vec![&"paris.example", &"PARIS.example.org"]));
        assert_eq!(find("TOKYO"), Found::Several(vec![&"tokyo", &"Tokyo"]));
    }

    #[test]
    fn what_fits_no_mirror_finds_none() {
        assert_eq!(find("berlin"), Found::None);
        assert_eq!(find(""), Found::None);
    }
}
