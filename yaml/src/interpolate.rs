//! `${VAR}`, `${VAR:-default}`, `${VAR:?message}`, `${file:PATH}` and `$$`, as Compose has them, replaced in
//! parsed scalars only: a variable can never add structure to the file.

use std::io;

/// Where the text behind `${...}` comes from.
pub struct Sources<'a> {
    /// The value of a variable, if it is set.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The contents of a file.
    pub file: &'a dyn Fn(&str) -> io::Result<String>,
}

/// The text with everything replaced, or what is wrong and what to do about it.
pub(crate) fn interpolate(text: &str, sources: &Sources<'_>) -> Result<String, (String, String)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, from) = rest.split_at(dollar);
        out.push_str(before);
        rest = if let Some(after) = from.strip_prefix("$$") {
            out.push('$');
            after
        } else if let Some(inside) = from.strip_prefix("${") {
            let Some((expression, after)) = inside.split_once('}') else {
                return Err(("`${` without its `}`".into(), "close it, or write `$$` for a dollar".into()));
            };
            out.push_str(&replacement(expression, sources)?);
            after
        } else {
            out.push('$');
            &from[1..]
        };
    }
    out.push_str(rest);
    Ok(out)
}

fn replacement(expression: &str, sources: &Sources<'_>) -> Result<String, (String, String)> {
    if let Some(path) = expression.strip_prefix("file:") {
        return (sources.file)(path)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| (format!("cannot read `{path}`: {error}"), "name a readable file".into()));
    }
    let (name, alternative) = match expression.split_once(':') {
        Some((name, alternative)) => (name, Some(alternative)),
        None => (expression, None),
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        let help = "write ${VAR}, ${VAR:-default}, ${VAR:?message} or ${file:PATH}; `$$` is a dollar";
        return Err((format!("`${{{expression}}}` names no variable"), help.into()));
    }
    let value = (sources.variable)(name);
    match alternative {
        None => value.ok_or_else(|| {
            (format!("the variable `{name}` is not set"), format!("set it, or write ${{{name}:-default}}"))
        }),
        Some(form) => match (value.filter(|value| !value.is_empty()), form.split_at_checked(1)) {
            (Some(value), Some(("-" | "?", _))) => Ok(value),
            (None, Some(("-", default))) => Ok(default.to_owned()),
            (None, Some(("?", message))) => {
                Err((format!("the variable `{name}` is not set: {message}"), format!("set `{name}`")))
            }
            _ => Err((
                format!("`${{{expression}}}` is no form that is known"),
                format!("write ${{{name}:-default}} or ${{{name}:?message}}"),
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, String> {
        let sources = Sources {
            variable: &|name| match name {
                "PORT" => Some("8443".into()),
                "EMPTY" => Some(String::new()),
                _ => None,
            },
            file: &|path| match path {
                "/secret" => Ok("s3cret\n".into()),
                _ => Err(io::ErrorKind::NotFound.into()),
            },
        };
        interpolate(text, &sources).map_err(|(message, _)| message)
    }

    #[test]
    fn replaces_every_form() {
        assert_eq!(with("[::]:${PORT}").as_deref(), Ok("[::]:8443"));
        assert_eq!(with("${NOT_SET:-a:b}${EMPTY:-x}${EMPTY}").as_deref(), Ok("a:bx"));
        assert_eq!(with("${file:/secret}").as_deref(), Ok("s3cret"));
        assert_eq!(with("~^/a$|$$x$").as_deref(), Ok("~^/a$|$x$"));
    }

    #[test]
    fn says_what_is_missing() {
        assert_eq!(with("${NOT_SET}"), Err("the variable `NOT_SET` is not set".into()));
        assert_eq!(
            with("${NOT_SET:?the tenant}"),
            Err("the variable `NOT_SET` is not set: the tenant".into())
        );
        for wrong in ["${", "${}", "${a b}", "${PORT:+x}", "${PORT:}", "${file:/none}"] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
    }
}
