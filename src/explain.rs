//! `ingre explain`: what would become of a request.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use anyhow::bail;
use proxy::config::Listener;
use proxy::explain::{Question, explain};

use crate::cli::ConfigArgument;
use crate::commands::print;
use crate::config;

/// A request, as the command line describes it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Method, such as GET.
    method: String,
    /// Where to, such as `https://www.example.com/path?query`.
    url: Url,
    /// A header field, `Name: value`; as often as wanted.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    fields: Vec<Field>,
    /// Name the client asks for in the TLS handshake. Default: the host of the URL.
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// Address the connection comes from.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,
    /// The listener that is meant, whatever the port of the URL. Default: those with that port; where it names none
    /// and none has the usual one, all of its scheme.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    #[command(flatten)]
    config: ConfigArgument,
}

/// Explains, for every listener that the request could reach.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let config = config::load(&options.config.path)?.proxy;
    let Options { url, .. } = options;
    let listeners = reached(&config.listeners, options);
    if listeners.is_empty() {
        let known: Vec<_> = config.listeners.iter().map(describe).collect();
        bail!(
            "no listener is reached by this URL; there are: {} (choose one with --listener)",
            known.join(", ")
        );
    }
    let fields: Vec<_> =
        options.fields.iter().map(|Field(name, value)| (name.clone(), value.clone())).collect();
    let is_name = url.host().parse::<IpAddr>().is_err() && !url.host().starts_with('[');
    let sni = options.sni.as_deref().or_else(|| is_name.then(|| url.host()));
    let mut answered = true;
    for (number, index) in listeners.into_iter().enumerate() {
        let question = Question {
            method: &options.method,
            authority: &url.authority,
            target: &url.target,
            fields: &fields,
            sni: sni.filter(|_| config.listeners.get(index).is_some_and(|listener| listener.tls.is_some())),
            from: options.from,
        };
        let explanation = explain(&config, index, &question);
        answered &= explanation.answered;
        let gap = if number == 0 { "" } else { "\n" };
        print(&format!("{gap}{}", explanation.text))?;
    }
    if answered { Ok(()) } else { bail!("neither an RS nor a rule would answer this request") }
}

fn describe(listener: &Listener) -> String {
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    format!("{} on {scheme}://{}", listener.name, listener.address)
}

/// The indices of the listeners that are meant.
fn reached(listeners: &[Listener], options: &Options) -> Vec<usize> {
    let indices = |is_meant: &dyn Fn(&Listener) -> bool| -> Vec<usize> {
        (0..listeners.len()).filter(|index| listeners.get(*index).is_some_and(is_meant)).collect()
    };
    if let Some(name) = &options.listener {
        return indices(&|listener| listener.name == *name);
    }
    let url = &options.url;
    let has_scheme = |listener: &Listener| listener.tls.is_some() == url.https;
    let port = url.port.unwrap_or(if url.https { 443 } else { 80 });
    let by_port = indices(&|listener| has_scheme(listener) && listener.address.port() == port);
    if by_port.is_empty() && url.port.is_none() { indices(&has_scheme) } else { by_port }
}

/// An absolute URL, whose path is left exactly as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Url {
    https: bool,
    authority: String,
    port: Option<u16>,
    target: String,
}

impl Url {
    fn host(&self) -> &str {
        match self.port {
            Some(_) => self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host),
            None => &self.authority,
        }
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("https://").map(|rest| (true, rest));
        let rest = rest.or_else(|| text.strip_prefix("http://").map(|rest| (false, rest)));
        let (https, rest) = rest.ok_or("it begins neither with https:// nor with http://")?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err("it has no host".to_owned());
        }
        let port = match authority.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => {
                Some(port.parse().map_err(|_| format!("`{port}` is no port"))?)
            }
            _ => None,
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self { https, authority: authority.to_owned(), port, target: format!("{slash}{target}") })
    }
}

/// A header field.
#[derive(Debug, Clone)]
struct Field(String, String);

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("write it as `Name: value`")?;
        if text.contains(['\r', '\n']) {
            return Err("a field is one line".to_owned());
        }
        Ok(Self(name.to_owned(), value.trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, https, authority, host, port, target) in [
            ("https://a.test", true, "a.test", "a.test", None, "/"),
            ("http://a.test:8080/x/../y?z#f", false, "a.test:8080", "a.test", Some(8080), "/x/../y?z"),
            ("https://[::1]:8443?q", true, "[::1]:8443", "[::1]", Some(8443), "/?q"),
            ("https://[::1]/", true, "[::1]", "[::1]", None, "/"),
        ] {
            let url: Url = text.parse().expect(text);
            assert_eq!((url.https, &*url.authority, url.host(), url.port), (https, authority, host, port));
            assert_eq!(url.target, target);
        }
        for wrong in ["a.test/", "ftp://a.test/", "https:///x", "https://a.test:x/", "https://a.test:99999/"]
        {
            assert!(wrong.parse::<Url>().is_err(), "{wrong}");
        }
    }
}
