//! Listings of rsync: what comes of one does not depend on the pieces it is read in, and has clean paths only.

/// The first byte says how the output is cut.
pub fn run(input: &[u8]) {
    let [cut, output @ ..] = input else { return };
    let piece = usize::from(*cut).max(1);
    let whole = mb_indexer::fuzzing::listing(output, usize::MAX);
    let pieces = mb_indexer::fuzzing::listing(output, piece);
    assert_eq!(whole, pieces, "pieces of {piece} bytes give something else");
    let Some((files, unparsable)) = whole else { return };
    assert!(files.len() as u64 + unparsable <= output.len() as u64, "more lines than bytes");
    for (path, _) in &files {
        assert!(mb_core::path::is_clean(path) && !path.ends_with(b"/"), "{} is not clean", path.escape_ascii());
    }
    assert!(files.is_sorted_by(|(a, _), (b, _)| a < b), "the files are not in order, or one is there twice");
}
