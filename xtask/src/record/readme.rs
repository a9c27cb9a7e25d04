//! The table of captures in testdata/README.md: recording replaces its rows, file by file, and
//! leaves the text around it alone.

use anyhow::Context as _;

/// One capture's row.
pub(super) struct Row {
    pub(super) file: &'static str,
    pub(super) frames: usize,
    pub(super) bytes: usize,
    pub(super) what: &'static str,
    pub(super) programs: String,
}

/// The table ends where this line stands.
const END: &str = "<!-- end of the recorder's table -->";

/// `text` with each of `rows` in place of the row of the same file, or added at the end.
pub(super) fn update(text: &str, rows: &[Row]) -> anyhow::Result<String> {
    let (table, after) = text
        .split_once(END)
        .with_context(|| format!("the README lost its line `{END}`"))?;
    let mut lines: Vec<String> = table.lines().map(str::to_owned).collect();
    for row in rows {
        let Row {
            file,
            frames,
            bytes,
            what,
            programs,
        } = row;
        let key = format!("| `{file}` |");
        let line = format!("{key} {frames} | {bytes} | {what} | {programs} |");
        match lines.iter_mut().find(|line| line.starts_with(&key)) {
            Some(old) => *old = line,
            None => lines.push(line),
        }
    }
    Ok(format!("{}\n{END}{after}", lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::{END, Row, update};

    fn row(file: &'static str, frames: usize) -> Row {
        Row {
            file,
            frames,
            bytes: 7,
            what: "w",
            programs: "p".to_owned(),
        }
    }

    #[test]
    fn rows_are_replaced_by_file_and_the_rest_stays() {
        let text = format!("# T\n| file |\n|---|\n| `a` | old |\n| `b` | keep |\n{END}\nafter\n");
        let new = update(&text, &[row("a", 1), row("c", 2)]).unwrap();
        let table = "| `a` | 1 | 7 | w | p |\n| `b` | keep |\n| `c` | 2 | 7 | w | p |\n";
        assert_eq!(new, format!("# T\n| file |\n|---|\n{table}{END}\nafter\n"));
        assert_eq!(update(&new, &[row("a", 1)]).unwrap(), new);
    }

    #[test]
    fn readme_without_the_mark_is_refused() {
        assert!(update("# T\n", &[row("a", 1)]).is_err());
    }
}
