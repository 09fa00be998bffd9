//! A table of results for people.

use std::fmt;

/// Named rows of figures under named columns; `Display` aligns them, two decimals each.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultTable {
    columns: Vec<String>,
    rows: Vec<(String, Vec<f64>)>,
}

impl ResultTable {
    /// A table without rows.
    pub fn new(columns: &[&str]) -> Self {
        Self {
            columns: columns.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
        }
    }

    /// Appends a row; missing figures stay blank, surplus ones are not shown.
    pub fn add(&mut self, name: &str, figures: &[f64]) {
        self.rows.push((name.to_owned(), figures.to_vec()));
    }
}

impl fmt::Display for ResultTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name_width = self
            .rows
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        let line = |name: &str, cells: Vec<String>| {
            let cells = cells.iter().zip(&self.columns).map(|(cell, column)| {
                format!("   {cell:>width$}", width = column.chars().count().max(6))
            });
            format!("{name:<name_width$}{}", cells.collect::<String>())
        };
        write!(f, "{}", line("", self.columns.clone()))?;
        for (name, figures) in &self.rows {
            let cells = figures
                .iter()
                .map(|figure| format!("{figure:.2}"))
                .collect();
            write!(f, "\n{}", line(name, cells))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = ResultTable::new(&["kNN top-1 %"]);
        table.add("pre-trained", &[79.125]);
        table.add("raw pixels", &[8.0]);
        let expected =
            "              kNN top-1 %\npre-trained         79.12\nraw pixels           8.00";
        assert_eq!(table.to_string(), expected);
    }
}
