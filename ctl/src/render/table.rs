//! Columns that line up.

use anstyle::Style;

use super::{HEADING, paint, printable};

/// Spaces between two columns.
const GAP: usize = 2;

/// Rows of cells below a heading.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// A column: its heading and on which side its cells line up.
#[derive(Clone, Copy)]
pub struct Column {
    heading: &'static str,
    right: bool,
}

/// A cell, and how it looks.
pub struct Cell {
    text: String,
    style: Style,
}

impl Column {
    /// Text, which lines up on the left.
    pub const fn text(heading: &'static str) -> Self {
        Self { heading, right: false }
    }

    /// Numbers, which line up on the right.
    pub const fn number(heading: &'static str) -> Self {
        Self { heading, right: true }
    }
}

impl Cell {
    /// A cell in `style`.
    pub fn styled(style: Style, text: impl ToString) -> Self {
        Self { text: printable(&text.to_string()), style }
    }

    /// A plain cell.
    pub fn new(text: impl ToString) -> Self {
        Self::styled(Style::new(), text)
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row of as many cells as there are columns.
    pub fn push<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len(), "a cell for each column");
        self.rows.push(cells.into());
    }

    /// One line for the headings, one for each row.
    pub fn render(self) -> String {
        let heading = |column: &Column| Cell::styled(HEADING, column.heading);
        let headings: Vec<Cell> = self.columns.iter().map(heading).collect();
        let mut widths: Vec<usize> = headings.iter().map(Cell::width).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            render_row(&mut text, row, &self.columns, &widths);
        }
        text
    }
}

fn render_row(text: &mut String, row: &[Cell], columns: &[Column], widths: &[usize]) {
    // Blanks are written only once something follows them: no line ends in any.
    let mut blanks = 0;
    for ((cell, column), width) in row.iter().zip(columns).zip(widths) {
        let fill = width - cell.width();
        if column.right {
            blanks += fill;
        }
        if !cell.text.is_empty() {
            text.push_str(&" ".repeat(blanks));
            text.push_str(&paint(cell.style, &cell.text));
            blanks = 0;
        } else {
            blanks += cell.width();
        }
        blanks += GAP + if column.right { 0 } else { fill };
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;

    #[test]
    fn columns_line_up_and_no_line_ends_in_blanks() {
        let mut table = Table::new(&[Column::text("NAME"), Column::number("N"), Column::text("X")]);
        table.push([Cell::new("a"), Cell::new(7), Cell::new("x")]);
        table.push([Cell::new("längerer"), Cell::new(1234), Cell::new("")]);
        table.push([Cell::new(""), Cell::new(""), Cell::new("tab\there")]);
        let text = strip_str(&table.render()).to_string();
        assert_eq!(
            text,
            "NAME         N  X\na            7  x\nlängerer  1234\n                tab here\n"
        );
    }
}
