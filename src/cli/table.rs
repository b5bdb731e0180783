//! Tables for people that scripts can read: columns are separated by tabs and aligned at tab stops of eight, as Mirrorbits
//! does it.

const TAB_STOP: usize = 8;

/// One line per row; every cell but the last is filled with tabs up to the widest of its column. All rows have as many cells
/// as the first.
pub(super) fn aligned<C: AsRef<str>>(rows: &[Vec<C>]) -> String {
    let length = |cell: &C| cell.as_ref().chars().count();
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let widest = rows.iter().map(|row| length(&row[column])).max().unwrap_or(0);
            (widest / TAB_STOP + 1) * TAB_STOP
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell.as_ref());
            if column + 1 < columns {
                let tabs = (widths[column] - length(cell)).div_ceil(TAB_STOP);
                text.extend(std::iter::repeat_n('\t', tabs));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_start_at_tab_stops_and_never_touch() {
        assert_eq!(aligned(&[vec!["1234567", "x"], vec!["", "yy"]]), "1234567\tx\n\tyy\n");
        assert_eq!(aligned(&[vec!["12345678", "x"], vec!["ü", "yy"]]), "12345678\tx\nü\t\tyy\n");
        assert_eq!(aligned::<&str>(&[]), "");
    }
}
