//! The lookup of the rule of a column, by name or by pattern.

use std::collections::HashMap;

use crate::model::input::rules::{FeatureRule, RawValue};

/// Finds the rules of values by name.
pub(crate) struct RuleIndex<'a> {
    rules: &'a [FeatureRule],
    names: HashMap<&'a str, usize>,
    patterns: Vec<(usize, &'a str)>,
}

impl<'a> RuleIndex<'a> {
    /// Indexes the columns of rules.
    pub(crate) fn new(rules: &'a [FeatureRule]) -> Self {
        let mut index = Self {
            rules,
            names: HashMap::new(),
            patterns: Vec::new(),
        };
        for (at, rule) in rules.iter().enumerate() {
            for name in &rule.columns {
                index.names.entry(name).or_insert(at);
                if name.contains('*') {
                    index.patterns.push((at, name));
                }
            }
        }
        index
    }

    /// Returns the position of the rule for a value of this name, or for the list column that has
    /// the value.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        let list = name.rsplit_once('[').map(|(list, _)| list);
        let named = self.names.get(name).or_else(|| self.names.get(list?));
        named.copied().or_else(|| {
            let found = self.patterns.iter();
            let mut found = found.filter(|(_, pattern)| {
                matches_pattern(pattern, name)
                    || list.is_some_and(|list| matches_pattern(pattern, list))
            });
            found.next().map(|(at, _)| *at)
        })
    }

    /// Returns the rule for a value of this name.
    pub(crate) fn rule(&self, name: &str) -> Option<&'a FeatureRule> {
        Some(&self.rules[self.position(name)?])
    }

    /// Returns the rule of a column, which may be named after the first value of a list.
    pub(crate) fn column_rule(&self, column: &str) -> Option<&'a FeatureRule> {
        let first = || format!("{column}[0]");
        self.rule(column).or_else(|| self.rule(&first()))
    }

    /// Returns the raw values of a column.
    pub(crate) fn raw(&self, column: &str) -> RawValue {
        let rule = self.column_rule(column);
        rule.map(FeatureRule::raw).unwrap_or_default()
    }
}

/// Whether a name matches a pattern in which `*` matches any characters.
pub(crate) fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}
