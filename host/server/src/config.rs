//! The table `server` of the configuration.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use plugin_api::{Config, Error, Result, Value};

use crate::keys::Keys;

/// Where a server listens, who may ask, and how much.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may ask; everybody where there are none.
    pub keys: Keys,
    /// Where operators are listened to, if anywhere.
    pub admin_address: Option<SocketAddr>,
    /// Who of them may ask.
    pub admin_keys: Keys,
    /// Names that this machine may be called by, besides its own.
    pub hosts: Vec<String>,
    /// Names of the model, the first one being its own.
    pub model_names: Vec<String>,
    /// The name of the model that turns texts into vectors, if there is to be one.
    pub embedding_model: Option<String>,
    /// Requests that may wait while as many run as the engine takes.
    pub max_queued: usize,
    /// Answers that one request may ask for: choices times prompts.
    pub max_choices: usize,
    /// Connections at a time; more wait to be accepted.
    pub max_connections: usize,
    /// Bytes of one body.
    pub body_bytes_max: usize,
    /// Tokens of a stream that its client has not read yet.
    pub unread_tokens_max: usize,
    /// Time for the head of a request, and between two requests of a connection.
    pub head_time: Duration,
    /// Time for the body of a request.
    pub body_time: Duration,
    /// Time in which a client has to read something of what is sent.
    pub write_time: Duration,
    /// Time for an answer.
    pub request_time: Duration,
    /// Time for requests in flight when the server is stopped.
    pub drain_time: Duration,
}

impl ServerConfig {
    /// Reads the table `server`; relative paths start at `base`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that names the key; [`Error::Outside`] for a file of keys that cannot be
    /// read.
    pub fn read(config: &Config, base: &Path) -> Result<Self> {
        let none = Config::at("server");
        let table = config.table("server")?.unwrap_or(&none);
        let size = |key, default: usize, max: u64| -> Result<usize> {
            Ok(table.count_or(key, default as u64, 1..=max)? as usize)
        };
        let seconds = |key, default| table.count_or(key, default, 1..=86_400);
        let admin = table.has("admin_address");
        Ok(Self {
            address: address(table, "address", DEFAULT_ADDRESS)?,
            keys: keys(table, "api_keys", "api_key_file", base)?,
            admin_address: admin.then(|| address(table, "admin_address", "")).transpose()?,
            admin_keys: keys(table, "admin_keys", "admin_key_file", base)?,
            hosts: texts(table, "hosts")?,
            model_names: texts(table, "model_names")?,
            embedding_model: None,
            max_queued: table.count_or("max_queued", 64, 0..=1 << 20)? as usize,
            max_choices: size("max_choices", 16, 1 << 12)?,
            max_connections: size("max_connections", 1024, 1 << 16)?,
            body_bytes_max: size("body_kib", 4096, 1 << 20)? << 10,
            unread_tokens_max: size("unread_tokens", 1024, 1 << 20)?,
            head_time: Duration::from_secs(seconds("head_seconds", 30)?),
            body_time: Duration::from_secs(seconds("body_seconds", 30)?),
            write_time: Duration::from_secs(seconds("write_seconds", 60)?),
            request_time: Duration::from_secs(seconds("request_seconds", 600)?),
            drain_time: Duration::from_secs(seconds("drain_seconds", 30)?),
        })
    }

    /// Refuses to be open to a network without any key.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that says what to do.
    pub fn check(&self) -> Result<()> {
        if let Some(address) = self.admin_address.filter(|_| self.admin_keys.is_empty()) {
            return Err(Error::Config {
                key: "server.admin_address".to_owned(),
                expected: "keys in server.admin_keys or server.admin_key_file".to_owned(),
                found: format!("{address} without keys"),
            });
        }
        if self.address.ip().is_loopback() || !self.keys.is_empty() {
            return Ok(());
        }
        Err(Error::Config {
            key: "server.address".to_owned(),
            expected: "a loopback address, or keys in server.api_keys or server.api_key_file"
                .to_owned(),
            found: format!("{} without keys", self.address),
        })
    }
}

/// The keys of a list and of a file.
fn keys(table: &Config, list: &str, file: &str, base: &Path) -> Result<Keys> {
    let mut keys = Keys::default();
    texts(table, list)?.iter().for_each(|key| keys.add(key));
    if table.has(file) {
        keys.add_file(&base.join(table.text(file)?))?;
    }
    Ok(keys)
}

fn address(table: &Config, key: &str, default: &str) -> Result<SocketAddr> {
    let text = table.text_or(key, default)?;
    text.parse().map_err(|_| {
        table.wrong(key, "an address with a port such as 127.0.0.1:8000", table.get(key))
    })
}

fn texts(table: &Config, key: &str) -> Result<Vec<String>> {
    let texts = table.list(key)?.iter().map(|value| match value {
        Value::Text(text) => Ok(text.clone()),
        other => Err(table.wrong(key, "a list of text", Some(other))),
    });
    texts.collect()
}

/// Nobody else's, and where the documents of other engines expect one.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8000";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(table: Config) -> Result<ServerConfig> {
        ServerConfig::read(&Config::new().with("server", table), Path::new(""))
    }

    #[test]
    fn is_open_to_this_machine_only_unless_there_are_keys() {
        let open = Config::at("server").with("address", "0.0.0.0:80");
        assert!(read(Config::at("server")).unwrap().check().is_ok());
        let error = read(open.clone()).unwrap().check().unwrap_err().to_string();
        assert!(error.starts_with("server.address: expected a loopback address"), "{error}");
        let keyed = open.with("api_keys", vec![Value::from("k")]);
        assert!(read(keyed).unwrap().check().is_ok());
        let admin = Config::at("server").with("admin_address", "127.0.0.1:80");
        let error = read(admin).unwrap().check().unwrap_err().to_string();
        assert!(error.starts_with("server.admin_address: expected keys"), "{error}");
    }

    #[test]
    fn names_what_it_does_not_understand() {
        #[rustfmt::skip]
        let cases = [
            ("address",     Value::from("localhost"), "server.address: expected an address with a port"),
            ("api_keys",    Value::from(3),           "server.api_keys: expected a list"),
            ("body_kib",    Value::from(0),           "server.body_kib: expected"),
            ("api_key_file", Value::from("/none"),    "/none: "),
        ];
        for (key, value, expected) in cases {
            let error = read(Config::at("server").with(key, value)).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
