//! `--format`: the words are the formats that `report` knows.

use std::fmt;
use std::sync::LazyLock;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::report::export::{
    ANALYZE, AnalysisExporter, COMPARE, ComparisonExporter, HISTORY, HistoryExporter, PLOT, PlotExporter, RECOMMEND,
};

/// A set of words: one for each row of a table of exporters, of which the first is the default.
macro_rules! formats {
    ($(#[$about:meta] $name:ident($exporter:ident) = $all:ident;)+) => {$(
        #[$about]
        #[derive(Clone, Copy)]
        pub struct $name(&'static $exporter);

        impl $name {
            /// Who writes it.
            pub fn exporter(self) -> &'static $exporter {
                self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self($all[0])
            }
        }

        impl ValueEnum for $name {
            fn value_variants<'a>() -> &'a [Self] {
                static ALL: LazyLock<Vec<$name>> = LazyLock::new(|| $all.into_iter().map($name).collect());
                &ALL
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                let format = self.0.format();
                Some(PossibleValue::new(format.name).help(format.about))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(self.0.format().name)
            }
        }
    )+};
}

formats! {
    /// What an analysis is written as.
    AnalyzeFormat(AnalysisExporter) = ANALYZE;
    /// What a recommendation is written as.
    RecommendFormat(AnalysisExporter) = RECOMMEND;
    /// What a comparison is written as.
    CompareFormat(ComparisonExporter) = COMPARE;
    /// What runs over time are written as.
    HistoryFormat(HistoryExporter) = HISTORY;
    /// What a plot is written as.
    PlotFormat(PlotExporter) = PLOT;
}

/// The format of a flag, where `--json` is another word for one.
pub(super) fn or_json<F: ValueEnum + Default + Copy>(given: Option<F>, json: bool) -> F {
    if json { F::from_str("json", false).unwrap_or_default() } else { given.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_word_of_its_own_and_the_short_flag_one() {
        fn words<F: ValueEnum>() -> Vec<String> {
            let all = F::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let mut words: Vec<String> = all.map(|value| value.get_name().to_owned()).collect();
            words.sort();
            words
        }
        assert_eq!(words::<AnalyzeFormat>(), ["batch-sizes", "csv", "datatrove", "html", "json", "markdown", "text"]);
        assert_eq!(words::<RecommendFormat>(), ["json", "text"]);
        assert_eq!(words::<CompareFormat>(), ["json", "markdown", "text"]);
        assert_eq!(words::<HistoryFormat>(), ["csv", "html", "json", "text"]);
        assert_eq!(words::<PlotFormat>(), ["png", "svg"]);
        let named = |json| format!("{:?}", or_json(None::<AnalyzeFormat>, json));
        assert_eq!([named(true), named(false)], ["json", "text"]);
    }
}
