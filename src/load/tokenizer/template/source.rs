//! The source of a template, made ready for minijinja: what Jinja2 reads otherwise.
//!
//! The text is read as Jinja2 reads it: comments, raw blocks and strings are never mistaken for tags.
//!
//! | in the template | for minijinja |
//! | --- | --- |
//! | line ends | `\n` |
//! | `{% generation %}` (transformers: marks text, and is a scope) | `{% with %}` |
//! | `{% raw %}` | `{% raw +%}`: the line end after it stays |
//! | escapes of strings | resolved as Python resolves them |
//! | `set x = y`, `set n.x = y` | `set x = (y) \| __within()`, `(y) \| __within(n)`: no endless nesting (`limits`) |
//! | `for x in y` | `for x in (y) \| __iterable`: None is no list |
//! | `'…' % y` | `('…' \| __percent(y))` |
//! | `a ~ b` | `__concat(a, b)`: numbers and lists as Python prints them |
//! | `a + b`, where the template has `safe` or `escape` | `__sum(a, b)`: text that is safe escapes the other |

use super::limits::{MOST_BRACKETS, MOST_BRANCHES, MOST_OPERATORS};

/// Rewrites a template.
///
/// # Errors
/// When it nests too deep to be compiled.
pub fn prepare(template: &str) -> Result<String, String> {
    let text = template.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(text.len());
    let marks = has_markup(&text);
    let mut rest = text.as_str();
    let mut branches = 0;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match rest.as_bytes().get(1) {
            Some(b'#') => {
                let end = rest[2..].find("#}").map_or(rest.len(), |end| end + 4);
                out.push_str(&rest[..end]);
                end
            }
            Some(b'{') => expression(rest, "}}", marks, &mut out)?,
            Some(b'%') => match raw_block(rest) {
                Some((start, end)) => {
                    // Jinja2 keeps the line end after this tag.
                    let open = &rest[..start];
                    match open.strip_suffix("-%}") {
                        Some(_) => out.push_str(open),
                        None => out.push_str(&open.replace("%}", "+%}")),
                    }
                    out.push_str(&rest[start..end]);
                    end
                }
                None => {
                    branches += usize::from(is_branch(rest));
                    if branches > MOST_BRANCHES {
                        return Err(format!("it has more than {MOST_BRANCHES} `elif`"));
                    }
                    tag(rest, marks, &mut out)?
                }
            },
            _ => {
                out.push('{');
                1
            }
        };
        rest = &rest[taken..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether the tag at the start of `text` is an `elif`: each is within the one before it.
fn is_branch(text: &str) -> bool {
    text[2..].trim_start_matches(['-', '+']).trim_start().starts_with("elif")
}

/// Whether a filter makes markup, which escapes what is added to it.
fn has_markup(text: &str) -> bool {
    text.split('|').skip(1).any(|after| {
        let name: String = after.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        matches!(name.as_str(), "safe" | "e" | "escape" | "forceescape")
    })
}

/// The lengths of the tag and of the whole of a raw block at the start of `text`, if there is one.
fn raw_block(text: &str) -> Option<(usize, usize)> {
    let start = named_tag(text, "raw")?;
    let mut at = start;
    while let Some(next) = text[at..].find("{%") {
        at += next;
        if let Some(length) = named_tag(&text[at..], "endraw") {
            return Some((start, at + length));
        }
        at += 2;
    }
    Some((start, text.len()))
}

/// The length of the tag `{% name %}` at the start of `text`.
fn named_tag(text: &str, name: &str) -> Option<usize> {
    let rest = text.strip_prefix("{%")?;
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start();
    let rest = rest.strip_prefix(name)?.trim_start();
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
    Some(text.len() - rest.len())
}

/// Copies a tag; a generation block becomes a `with` block without variables.
fn tag(text: &str, marks: bool, out: &mut String) -> Result<usize, String> {
    for (name, scope) in [("generation", "with"), ("endgeneration", "endwith")] {
        if let Some(length) = named_tag(text, name) {
            out.push_str(&text[..length].replacen(name, scope, 1));
            return Ok(length);
        }
    }
    expression(text, "%}", marks, out)
}

/// A piece of an expression, with the white space before it.
#[derive(Debug, Clone)]
struct Token {
    before: String,
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Name,
    Sign,
}

impl Token {
    fn sign(text: &str) -> Self {
        Self { before: String::new(), text: text.into(), kind: Kind::Sign }
    }

    fn name(text: &str) -> Self {
        Self { before: " ".into(), text: text.into(), kind: Kind::Name }
    }

    fn is(&self, text: &str) -> bool {
        self.text == text && self.kind != Kind::Text
    }

    fn opens(&self) -> bool {
        self.kind == Kind::Sign && matches!(self.text.as_str(), "(" | "[" | "{")
    }

    fn closes(&self) -> bool {
        self.kind == Kind::Sign && matches!(self.text.as_str(), ")" | "]" | "}")
    }

    /// Whether an operand can end with it, so that a sign after it stands between two.
    fn ends_operand(&self) -> bool {
        match self.kind {
            Kind::Text | Kind::Number => true,
            Kind::Name => !is_keyword(&self.text),
            Kind::Sign => self.closes(),
        }
    }
}

/// Words that stand between operands.
fn is_keyword(word: &str) -> bool {
    matches!(word, "and" | "or" | "not" | "in" | "is" | "if" | "elif" | "else" | "for" | "set" | "recursive")
}

/// Copies what is between delimiters, rewritten; returns how much of `text` that was.
fn expression(text: &str, close: &str, marks: bool, out: &mut String) -> Result<usize, String> {
    let mut at = 2;
    out.push_str(&text[..2]);
    if text[at..].starts_with(['-', '+']) {
        out.push_str(&text[at..=at]);
        at += 1;
    }
    let mut tokens = Vec::new();
    let mut open = 0usize;
    let mut depth = Depth::default();
    loop {
        let white = text[at..].len() - text[at..].trim_start().len();
        let before = text[at..at + white].to_owned();
        at += white;
        let rest = &text[at..];
        let signed = rest.starts_with(['-', '+']) && rest[1..].starts_with(close);
        let Some(first) = rest.chars().next().filter(|_| open > 0 || !(rest.starts_with(close) || signed)) else {
            let end = if rest.is_empty() { 0 } else { close.len() + usize::from(signed) };
            write(&rewritten(tokens, marks), out);
            out.push_str(&before);
            out.push_str(&rest[..end]);
            return Ok(at + end);
        };
        let (length, value, kind) = token(rest, first);
        depth.add(&value, kind)?;
        if kind == Kind::Sign {
            match first {
                '{' | '(' | '[' => open += 1,
                '}' | ')' | ']' => open = open.saturating_sub(1),
                _ => {}
            }
        }
        tokens.push(Token { before, text: value, kind });
        at += length;
    }
}

/// How deep an expression is: operators of what is open.
#[derive(Debug, Default)]
struct Depth {
    outer: Vec<usize>,
    operators: usize,
    all: usize,
}

impl Depth {
    fn add(&mut self, text: &str, kind: Kind) -> Result<(), String> {
        match (kind, text) {
            (Kind::Text | Kind::Number, _) => {}
            (Kind::Name, word) if !is_keyword(word) => {}
            (Kind::Sign, "," | ":") => self.all -= std::mem::take(&mut self.operators),
            (Kind::Sign, "(" | "[" | "{") => self.outer.push(std::mem::take(&mut self.operators)),
            (Kind::Sign, ")" | "]" | "}") => {
                self.all = self.all - self.operators + 1;
                self.operators = self.outer.pop().unwrap_or(0) + 1;
            }
            _ => {
                self.operators += 1;
                self.all += 1;
            }
        }
        if self.outer.len() > MOST_BRACKETS {
            return Err(format!("it has more than {MOST_BRACKETS} brackets within each other"));
        }
        if self.all > MOST_OPERATORS {
            return Err(format!(
                "an expression in it has more than {MOST_OPERATORS} operators, filters and attributes"
            ));
        }
        Ok(())
    }
}

fn write(tokens: &[Token], out: &mut String) {
    for token in tokens {
        out.push_str(&token.before);
        out.push_str(&token.text);
    }
}

/// The token at the start of `text`: its length, what is written for it, its kind.
fn token(text: &str, first: char) -> (usize, String, Kind) {
    let length = |is: fn(char) -> bool| text.find(|c| !is(c)).unwrap_or(text.len());
    if first == '\'' || first == '"' {
        let (length, value) = string(text, first);
        return (length, value, Kind::Text);
    }
    if first.is_ascii_digit() {
        let length = length(|c| c.is_alphanumeric() || c == '_');
        return (length, text[..length].to_owned(), Kind::Number);
    }
    if first.is_alphabetic() || first == '_' {
        let length = length(|c| c.is_alphanumeric() || c == '_');
        return (length, text[..length].to_owned(), Kind::Name);
    }
    let long = ["**", "//", "==", "!=", "<=", ">="].into_iter().find(|sign| text.starts_with(sign));
    let sign = long.unwrap_or(&text[..first.len_utf8()]);
    (sign.len(), sign.to_owned(), Kind::Sign)
}

fn rewritten(tokens: Vec<Token>, marks: bool) -> Vec<Token> {
    let tokens = if tokens.iter().any(|token| token.is("~")) { with_calls(tokens, CONCAT) } else { tokens };
    let tokens = if marks { with_calls(tokens, SUM) } else { tokens };
    with_limit(with_iterable(with_percent(tokens)))
}

/// Puts what a `set` tag sets through a filter that refuses what is nested too deep, or within itself.
fn with_limit(mut tokens: Vec<Token>) -> Vec<Token> {
    if !tokens.first().is_some_and(|token| token.is("set")) {
        return tokens;
    }
    let mut open = 0usize;
    let sign = tokens.iter().position(|token| {
        open = (open + usize::from(token.opens())).saturating_sub(token.closes().into());
        open == 0 && token.is("=")
    });
    let Some(at) = sign else { return tokens };
    if at + 1 == tokens.len() {
        return tokens;
    }
    let namespaces: Vec<Token> = (1..at)
        .filter(|at| tokens[*at].is("."))
        .map(|at| Token { before: " ".into(), ..tokens[at - 1].clone() })
        .collect();
    let mut after =
        vec![Token::sign(")"), Token::sign("|"), Token { before: String::new(), ..Token::name("__within") }];
    after.push(Token::sign("("));
    for (index, namespace) in namespaces.into_iter().enumerate() {
        after.extend((index > 0).then(|| Token::sign(",")));
        after.push(namespace);
    }
    after.push(Token::sign(")"));
    tokens.extend(after);
    tokens.insert(at + 1, Token { before: " ".into(), ..Token::sign("(") });
    tokens
}

/// Where the group that opens at `at` closes.
fn closing(tokens: &[Token], at: usize) -> usize {
    let mut open = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        if token.opens() {
            open += 1;
        } else if token.closes() {
            open = open.saturating_sub(1);
            if open == 0 {
                return index;
            }
        }
    }
    tokens.len().saturating_sub(1)
}

/// Puts the list of a `for` tag through a filter that refuses what Python cannot iterate over.
fn with_iterable(mut tokens: Vec<Token>) -> Vec<Token> {
    if !tokens.first().is_some_and(|token| token.is("for")) {
        return tokens;
    }
    let Some(start) = tokens.iter().position(|token| token.is("in")).map(|at| at + 1) else { return tokens };
    let mut end = start;
    while let Some(token) = tokens.get(end).filter(|token| !token.is("if") && !token.is("recursive")) {
        end = if token.opens() { closing(&tokens, end) } else { end } + 1;
    }
    if end > start {
        let after = [Token::sign(")"), Token::sign("|"), Token { before: String::new(), ..Token::name("__iterable") }];
        tokens.splice(end..end, after);
        tokens.insert(start, Token { before: " ".into(), ..Token::sign("(") });
    }
    tokens
}

/// `'…' % y` becomes a filter.
fn with_percent(tokens: Vec<Token>) -> Vec<Token> {
    let mut out: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let is_text = tokens[at].is("%") && out.last().is_some_and(|token| token.kind == Kind::Text);
        if !is_text {
            out.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // Neighbouring strings are one.
        let start = out.iter().rposition(|token| token.kind != Kind::Text).map_or(0, |at| at + 1);
        let end = operand(&tokens, at + 1);
        let given = with_percent(tokens[at + 1..end].to_vec());
        out.insert(start, Token { before: " ".into(), ..Token::sign("(") });
        out.extend([Token::sign("|"), Token { before: String::new(), ..Token::name("__percent") }, Token::sign("(")]);
        out.extend(given);
        out.extend([Token::sign(")"), Token::sign(")")]);
        at = end;
    }
    out
}

/// Where the operand that begins at `at` ends: signs, a value, and what is done to it.
fn operand(tokens: &[Token], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|token| token.is("-") || token.is("+")) {
        at += 1;
    }
    let mut first = true;
    while let Some(token) = tokens.get(at) {
        if token.opens() {
            at = closing(tokens, at) + 1;
        } else if token.is(".") || token.is("|") {
            at += 2;
        } else if first || (token.kind == Kind::Text && tokens[at - 1].kind == Kind::Text) {
            at += 1;
        } else {
            break;
        }
        first = false;
    }
    at.min(tokens.len())
}

/// An operator that becomes a call.
#[derive(Debug, Clone, Copy)]
struct Operator {
    sign: &'static str,
    call: &'static str,
    /// Operators that bind less, beyond comparisons.
    looser: &'static [&'static str],
    /// One of the same level, beside which it is left alone.
    beside: &'static str,
}

const CONCAT: Operator = Operator { sign: "~", call: "__concat", looser: &["+", "-"], beside: "" };
const SUM: Operator = Operator { sign: "+", call: "__sum", looser: &[], beside: "-" };

/// `a ~ b` becomes a call, in every group of brackets.
fn with_calls(tokens: Vec<Token>, operator: Operator) -> Vec<Token> {
    let mut out = Vec::with_capacity(tokens.len());
    let (mut segment, mut at): (Vec<Token>, usize) = (Vec::new(), 0);
    while at < tokens.len() {
        let token = &tokens[at];
        if token.opens() {
            let end = closing(&tokens, at).max(at + 1);
            segment.push(token.clone());
            segment.extend(with_calls(tokens[at + 1..end.min(tokens.len())].to_vec(), operator));
            segment.extend(tokens.get(end).cloned());
            at = end + 1;
            continue;
        }
        let between = segment.last().is_some_and(Token::ends_operand);
        // What a tag begins with is no operand.
        let boundary = match token.kind {
            Kind::Name => {
                is_keyword(&token.text) || (at == 0 && tokens.get(1).is_some_and(|next| next.kind != Kind::Sign))
            }
            Kind::Sign => {
                matches!(token.text.as_str(), "," | ":" | "=" | "==" | "!=" | "<" | ">" | "<=" | ">=")
                    || (between && operator.looser.contains(&token.text.as_str()))
            }
            Kind::Text | Kind::Number => false,
        };
        if boundary {
            out.extend(called(std::mem::take(&mut segment), operator));
            out.push(token.clone());
        } else {
            segment.push(token.clone());
        }
        at += 1;
    }
    out.extend(called(segment, operator));
    out
}

/// One chain of the operator.
fn called(tokens: Vec<Token>, operator: Operator) -> Vec<Token> {
    let (mut parts, mut open, mut alone) = (vec![Vec::new()], 0usize, true);
    for (index, token) in tokens.iter().enumerate() {
        if token.opens() {
            open += 1;
        } else if token.closes() {
            open = open.saturating_sub(1);
        }
        let between = open == 0 && index > 0 && tokens[index - 1].ends_operand();
        alone &= !(between && token.is(operator.beside));
        if between && token.is(operator.sign) {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(token.clone());
        }
    }
    if parts.len() < 2 || !alone {
        return tokens;
    }
    let mut out = vec![Token::name(operator.call), Token::sign("(")];
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            out.push(Token::sign(","));
        }
        out.extend(part);
    }
    out.push(Token::sign(")"));
    out
}

/// A string at the start of `text`: its length, and the same with its escapes resolved as Python resolves them. One without
/// an end is left as it is.
fn string(text: &str, quote: char) -> (usize, String) {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            let mut out = String::from(quote);
            for c in value.chars() {
                if c == '\\' || c == quote {
                    out.push('\\');
                }
                out.push(c);
            }
            out.push(quote);
            return (at + 1, out);
        }
        if c != '\\' {
            value.push(c);
            continue;
        }
        let Some((_, escaped)) = chars.next() else { break };
        match unescaped(&text[at + 1..], escaped) {
            Some((c, more)) => {
                value.extend(c);
                for _ in 0..more {
                    chars.next();
                }
            }
            None => {
                value.push('\\');
                value.push(escaped);
            }
        }
    }
    (text.len(), text.to_owned())
}

/// What an escape stands for, and how many characters more it has; `None` = Python leaves it as it is.
fn unescaped(text: &str, escaped: char) -> Option<(Option<char>, usize)> {
    let coded = |from: usize, count: usize, radix: u32| {
        let digits = text.get(from..from + count).filter(|digits| digits.chars().all(|c| c.is_digit(radix)))?;
        let c = u32::from_str_radix(digits, radix).ok().and_then(char::from_u32)?;
        Some((Some(c), from + count - 1))
    };
    let one = |c: char| Some((Some(c), 0));
    match escaped {
        '\n' => Some((None, 0)),
        'a' => one('\u{7}'),
        'b' => one('\u{8}'),
        'f' => one('\u{c}'),
        'n' => one('\n'),
        'r' => one('\r'),
        't' => one('\t'),
        'v' => one('\u{b}'),
        '\\' | '\'' | '"' => one(escaped),
        'x' => coded(1, 2, 16),
        'u' => coded(1, 4, 16),
        'U' => coded(1, 8, 16),
        '0'..='7' => coded(0, text.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count(), 8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::prepare;

    #[test]
    fn only_what_is_code_is_rewritten() {
        for same in [
            "{# {% generation %} #}{{ a }}",
            "{% raw -%}{% generation %}{{ 'a' % b }}{% endraw %}",
            "{{ '{% generation %}' }}",
            "text { % }} %}",
            "{{ {'a': {'b': 1}} }}",
            "{{ a % b }}{{ a + b }}",
            "{%- if a -%} b {%+ endif +%}",
            "{{ 'open",
        ] {
            assert_eq!(prepare(same).unwrap(), same);
        }
        for (template, ready) in [
            ("{%- generation -%}a{% endgeneration %}", "{%- with -%}a{% endwith %}"),
            ("{% raw %}\n{{ 'a' % b }}{% endraw %}", "{% raw +%}\n{{ 'a' % b }}{% endraw %}"),
            ("a\r\nb\r{{ x }}", "a\nb\n{{ x }}"),
            ("{{ '\\u00e9\\/\\x41\\n' }}", "{{ 'é\\\\/A\n' }}"),
            ("{{ 'it\\'s' }}", "{{ 'it\\'s' }}"),
            ("{% for a in b if c %}", "{% for a in ( b)|__iterable if c %}"),
            ("{% for k, v in d.items() %}", "{% for k, v in ( d.items())|__iterable %}"),
            ("{{ '%02d' % n + 'x' }}", "{{ ( '%02d'|__percent( n)) + 'x' }}"),
            ("{{ a|safe + b.c ~ 'd' }}", "{{ __sum( a|safe, __concat( b.c, 'd')) }}"),
            ("{% set a = b %}", "{% set a = ( b)|__within() %}"),
            ("{%- set n.a = n.b, 1 -%}", "{%- set n.a = ( n.b, 1)|__within( n) -%}"),
            ("{% set a | tojson(indent=2) %}b{% endset %}", "{% set a | tojson(indent=2) %}b{% endset %}"),
            ("{% if a ~ (b ~ c) == -d ~ e %}", "{% if __concat( a, ( __concat(b, c))) == __concat( -d, e) %}"),
        ] {
            assert_eq!(prepare(template).unwrap(), ready);
        }
    }
}
