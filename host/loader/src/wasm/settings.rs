//! The interface `settings`: configuration, with the host's marks of what was read.

use plugin_api::{Config, Value};
use wasmtime::Result;
use wasmtime::component::{HasSelf, Linker, Resource};

use super::bindings::offers::jackfield::plugin::settings::{
    self, Host, HostConfig, HostValues, Value as WireValue,
};
use super::state::State;

/// A table that a guest holds. Clones of a configuration share its marks.
#[allow(unreachable_pub, reason = "named again by generated code")]
pub struct Table(pub(super) Config);

/// Values in order that a guest holds.
#[allow(unreachable_pub, reason = "named again by generated code")]
pub struct Items(Vec<Value>);

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    settings::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl State {
    fn wire(&mut self, value: &Value) -> Result<WireValue> {
        Ok(match value {
            Value::Bool(x) => WireValue::Boolean(*x),
            Value::Int(x) => WireValue::Integer(*x),
            Value::Float(x) => WireValue::Number(*x),
            Value::Text(x) => WireValue::Text(x.clone()),
            Value::List(x) => WireValue::Items(self.table.push(Items(x.clone()))?),
            Value::Table(x) => WireValue::Table(self.table.push(Table(x.clone()))?),
        })
    }
}

impl Host for State {}

impl HostConfig for State {
    fn path(&mut self, this: Resource<Table>) -> Result<String> {
        Ok(self.table.get(&this)?.0.path().to_owned())
    }

    fn keys(&mut self, this: Resource<Table>) -> Result<Vec<String>> {
        Ok(self.table.get(&this)?.0.keys().map(str::to_owned).collect())
    }

    fn get(&mut self, this: Resource<Table>, key: String) -> Result<Option<WireValue>> {
        let value = self.table.get(&this)?.0.get(&key).cloned();
        value.map(|value| self.wire(&value)).transpose()
    }

    fn entries(&mut self, this: Resource<Table>) -> Result<Vec<(String, WireValue)>> {
        let config = self.table.get(&this)?.0.clone();
        let entries = config.unmarked();
        entries.map(|(key, value)| Ok((key.to_owned(), self.wire(value)?))).collect()
    }

    fn mark(&mut self, this: Resource<Table>, key: String) -> Result<()> {
        self.table.get(&this)?.0.get(&key);
        Ok(())
    }

    fn drop(&mut self, this: Resource<Table>) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl HostValues for State {
    fn all(&mut self, this: Resource<Items>) -> Result<Vec<WireValue>> {
        let items = self.table.get(&this)?.0.clone();
        items.iter().map(|item| self.wire(item)).collect()
    }

    fn drop(&mut self, this: Resource<Items>) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
