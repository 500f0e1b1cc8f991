//! Priority and fairness: every request belongs to a flow schema, and with it to a priority level, whose seats are shared
//! out fairly among its flows. A request that finds none waits in a queue for a while, or is turned away with 429.
//!
//! - [`schema`]: which requests belong to a FlowSchema
//! - [`level`], [`queues`]: a priority level's seats, and who gets the next
//! - [`share`], [`demand`]: how many seats a level has
//! - [`estimate`]: how many a request takes
//! - [`status`]: what is written into the FlowSchemas
//!
//! Requests look at a [`Table`] that is made anew when an object changes; they take no lock but their level's.

mod demand;
mod estimate;
mod level;
mod meters;
mod queues;
mod schema;
mod share;
pub(crate) mod status;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use keelson_api::kinds::mandatory_flow_control;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::demand::Period;
use self::level::{Level, Settings};
use self::schema::Schema;
use crate::UserInfo;
use crate::cache::feed::Listener;
use crate::cache::{Cache, Change, Entry, ResourceCache};
use crate::core::Core;
use crate::http::path::RequestInfo;
use crate::http::query::Query;

pub(crate) use self::level::Seats;
pub(crate) use self::meters::{Meters, Reason};
pub(crate) use self::share::Bounds;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";
const CATCH_ALL: &str = "catch-all";
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// Between two divisions of the seats.
const REBALANCE: Duration = Duration::from_secs(10);
/// The part of a request's time for which it may wait.
const WAIT_PART: u32 = 4;
/// The part of a level's seats that one request may take.
const REQUEST_PART: f64 = 0.15;

/// Who may go on.
pub(crate) struct FlowControl {
    /// Seats of the server.
    total: u32,
    table: ArcSwap<Table>,
    objects: Mutex<Objects>,
    hasher: RandomState,
}

/// What the objects say.
#[derive(Default)]
struct Objects {
    /// By key.
    schemas: BTreeMap<Arc<str>, Arc<Schema>>,
    levels: BTreeMap<Arc<str>, Settings>,
    /// By name, what became of them.
    running: HashMap<String, Arc<Level>>,
    smoothed: HashMap<String, f64>,
}

/// All of one moment.
#[derive(Default)]
struct Table {
    /// In the order in which they are tried.
    rows: Vec<Row>,
    levels: Vec<LevelRow>,
}

struct Row {
    schema: Arc<Schema>,
    level: Arc<Level>,
    level_uid: HeaderValue,
    /// Seats that one request may take.
    most: u32,
}

struct LevelRow {
    name: String,
    level: Arc<Level>,
    bounds: Bounds,
}

/// The parts of an object's metadata that matter.
#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    uid: String,
}

/// What a request belongs to, for its response.
#[derive(Clone)]
pub(crate) struct Classification {
    schema_uid: HeaderValue,
    level_uid: HeaderValue,
}

impl Classification {
    /// Says it in the response's headers.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        headers.insert(SCHEMA_UID, self.schema_uid);
        headers.insert(LEVEL_UID, self.level_uid);
    }
}

/// What became of a request that wants seats.
pub(crate) struct Entered {
    pub(crate) class: Option<Classification>,
    pub(crate) seats: Result<Option<Seats>, Reason>,
    pub(crate) waited: Duration,
}

/// A flow schema's state, for those who show it.
pub(crate) struct SchemaState {
    pub(crate) name: String,
    pub(crate) level: String,
    pub(crate) meters: Arc<Meters>,
}

/// A priority level's state, for those who show it.
pub(crate) struct LevelState {
    pub(crate) name: String,
    pub(crate) bounds: Bounds,
    /// Seats that it has now; none when it is exempt, and needs none.
    pub(crate) limit: u32,
    /// Queues with requests that wait or are served.
    pub(crate) active_queues: usize,
}

impl FlowControl {
    /// With the objects that every cluster has, and `total` seats.
    pub(crate) fn new(total: u32) -> Arc<Self> {
        let flow = Self { total, table: ArcSwap::default(), objects: Mutex::default(), hasher: RandomState::new() };
        flow.rebuild(&mut flow.objects.lock());
        Arc::new(flow)
    }

    /// Seats for a request, and what it belongs to. It waits for them a part of the time that it has.
    pub(crate) async fn enter(
        &self,
        core: &Core,
        user: &UserInfo,
        info: &RequestInfo,
        query: &Query,
        time: Duration,
    ) -> Entered {
        let table = self.table.load_full();
        // The last one takes everything.
        let Some(row) = table.rows.iter().find(|row| row.schema.matches(user, info)).or(table.rows.last()) else {
            return Entered { class: None, seats: Ok(None), waited: Duration::ZERO };
        };
        let class = Classification { schema_uid: row.schema.uid.clone(), level_uid: row.level_uid.clone() };
        let meters = &row.schema.meters;
        if row.level.is_exempt() {
            let seats = row.level.pass(meters);
            return Entered { class: Some(class), seats: Ok(Some(seats)), waited: Duration::ZERO };
        }
        let flow = self.hasher.hash_one((&row.schema.name, row.schema.flow(user, info)));
        let cost = estimate::cost(core, info, query, row.most);
        let begin = Instant::now();
        let entered = row.level.enter(flow, cost, meters, begin, time / WAIT_PART).await;
        let of =
            |executed| core.metrics.flow_waits.with_label_values(&[&*row.schema.level, &*row.schema.name, executed]);
        let (seats, waited) = match entered {
            Ok(seats) => {
                let waited = seats.since(begin);
                meters.waits.get_or_init(|| of("true")).observe(waited.as_secs_f64());
                (Ok(Some(seats)), waited)
            }
            Err(reason) => {
                meters.reject(reason);
                let waited = begin.elapsed();
                of("false").observe(waited.as_secs_f64());
                (Err(reason), waited)
            }
        };
        Entered { class: Some(class), seats, waited }
    }

    /// Divides the seats from time to time, until the server stops.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut rebalance = tokio::time::interval(REBALANCE);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = rebalance.tick() => self.rebalance(),
            }
        }
    }

    /// Every flow schema.
    pub(crate) fn schemas(&self) -> Vec<SchemaState> {
        let state = |row: &Row| {
            let Schema { name, level, meters, .. } = &*row.schema;
            SchemaState { name: name.clone(), level: level.clone(), meters: meters.clone() }
        };
        self.table.load().rows.iter().map(state).collect()
    }

    /// Every priority level.
    pub(crate) fn levels(&self) -> Vec<LevelState> {
        let state = |row: &LevelRow| {
            let (limit, active_queues) = row.level.state();
            LevelState { name: row.name.clone(), bounds: row.bounds, limit, active_queues }
        };
        self.table.load().levels.iter().map(state).collect()
    }

    fn rebalance(&self) {
        let mut objects = self.objects.lock();
        let table = self.table.load_full();
        let mut limited = Vec::new();
        for row in &table.levels {
            let Some(period) = row.level.period() else { continue };
            let before = objects.smoothed.get(&row.name).copied().unwrap_or_default();
            let smoothed = share::smoothed(before, period);
            objects.smoothed.insert(row.name.clone(), smoothed);
            limited.push((row, (row.bounds, period, smoothed)));
        }
        let demands: Vec<(Bounds, Period, f64)> = limited.iter().map(|(_, demand)| *demand).collect();
        for ((row, _), seats) in limited.iter().zip(share::divide(self.total, &demands)) {
            row.level.set_limit(seats);
        }
    }

    /// Makes the table from the objects.
    fn rebuild(&self, objects: &mut Objects) {
        let mut levels: Vec<Settings> = objects.levels.values().cloned().collect();
        let mut schemas: Vec<Arc<Schema>> = objects.schemas.values().cloned().collect();
        // What must be there is there, whatever the store says.
        for object in mandatory_flow_control() {
            if let Ok(view) = serde_json::from_value::<level::View>(object.clone()) {
                let level = Settings::from(view);
                if is_level(&object) && !levels.iter().any(|there| there.name == level.name) {
                    levels.push(level);
                }
            }
            if let Ok(view) = serde_json::from_value::<schema::View>(object.clone()) {
                let schema = Schema::from(view);
                if !is_level(&object) && !schemas.iter().any(|there| there.name == schema.name) {
                    schemas.push(Arc::new(schema));
                }
            }
        }
        let shares: Vec<_> = levels.iter().map(|level| level.shares).collect();
        let bounds = share::bounds(self.total, &shares);
        let before = self.table.load_full();
        let mut running = HashMap::new();
        let mut level_rows = Vec::new();
        for (settings, bounds) in levels.iter().zip(bounds) {
            let known = objects.running.get(&settings.name).filter(|level| level.fits(settings)).cloned();
            let level = known.unwrap_or_else(|| Arc::new(Level::new(settings, bounds.nominal)));
            level.configure(settings);
            let same = before.levels.iter().any(|row| row.name == settings.name && row.bounds == bounds);
            if !same {
                level.set_limit(bounds.nominal);
            }
            running.insert(settings.name.clone(), level.clone());
            level_rows.push(LevelRow { name: settings.name.clone(), level, bounds });
        }
        // Of the same precedence, by name; what catches everything comes last.
        schemas.sort_by(|a, b| {
            let key = |schema: &Schema| (schema.name == CATCH_ALL, schema.precedence);
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        let rows = schemas.into_iter().filter_map(|schema| {
            let at = levels.iter().position(|level| level.name == schema.level)?;
            let (settings, row) = (levels.get(at)?, level_rows.get(at)?);
            let most = (f64::from(row.bounds.nominal) * REQUEST_PART).ceil() as u32;
            Some(Row { schema, level: row.level.clone(), level_uid: settings.uid.clone(), most: most.max(1) })
        });
        let rows = rows.collect();
        objects.smoothed.retain(|name, _| running.contains_key(name));
        objects.running = running;
        self.table.store(Arc::new(Table { rows, levels: level_rows }));
    }
}

impl Objects {
    fn set(&mut self, resource: &str, key: &Arc<str>, entry: Option<&Entry>) {
        match resource {
            SCHEMAS => {
                let Some(view) = entry.and_then(|entry| entry.typed::<schema::View>().ok()) else {
                    self.schemas.remove(key);
                    return;
                };
                let mut schema = Schema::from(view);
                if let Some(before) = self.schemas.get(key) {
                    schema.meters = before.meters.clone();
                }
                self.schemas.insert(key.clone(), Arc::new(schema));
            }
            LEVELS => {
                match entry.and_then(|entry| entry.typed::<level::View>().ok()) {
                    Some(view) => self.levels.insert(key.clone(), view.into()),
                    None => self.levels.remove(key),
                };
            }
            _ => {}
        }
    }
}

impl Listener for FlowControl {
    fn changed(&self, resource: &ResourceCache, change: &Change) {
        if resource.group() != GROUP {
            return;
        }
        if let Some(entry) = change.new.as_ref().or(change.old.as_ref()) {
            let mut objects = self.objects.lock();
            objects.set(resource.resource(), &entry.key, change.new.as_deref());
            self.rebuild(&mut objects);
        }
    }

    fn reloaded(&self, cache: &Cache) {
        let mut objects = self.objects.lock();
        let schemas = std::mem::take(&mut objects.schemas);
        objects.levels.clear();
        for resource in [SCHEMAS, LEVELS] {
            let Some(cache) = cache.resource(GROUP, resource) else { continue };
            for (key, entry) in &cache.snapshot().map {
                if let Some(before) = schemas.get(key) {
                    objects.schemas.insert(key.clone(), before.clone());
                }
                objects.set(resource, key, Some(entry));
            }
        }
        self.rebuild(&mut objects);
    }
}

fn is_level(object: &serde_json::Value) -> bool {
    object.get("kind").is_some_and(|kind| kind == "PriorityLevelConfiguration")
}

/// A UID as a header's value.
fn header(uid: &str) -> HeaderValue {
    HeaderValue::from_str(uid).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests;
