use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::Event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;

fn object(namespace: &str, name: &str, version: u32) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.namespace = Some(namespace.into());
    map.metadata.name = Some(name.into());
    map.metadata.uid = Some(format!("uid-{name}"));
    map.metadata.resource_version = Some(version.to_string());
    map.metadata.managed_fields = Some(Vec::new());
    map
}

fn start() -> (mpsc::UnboundedSender<watcher::Result<Event<ConfigMap>>>, SharedInformer<ConfigMap>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stream = UnboundedReceiverStream::new(receiver).boxed();
    (sender, SharedInformer::start_from("configmaps".into(), stream, Some(|map| map.data = None)))
}

fn show(change: &Change<ConfigMap>) -> String {
    let one = |map: &ConfigMap| {
        let meta = &map.metadata;
        format!("{}@{}", meta.name.as_deref().unwrap(), meta.resource_version.as_deref().unwrap())
    };
    match change {
        Change::Added(new) => format!("+{}", one(new)),
        Change::Updated(old, new) => format!("{}>{}", one(old), one(new)),
        Change::Deleted(old) => format!("-{}", one(old)),
        Change::Resync(all) => format!("={}", all.iter().map(|map| one(map)).collect::<Vec<_>>().join(",")),
    }
}

async fn next(subscription: &mut Subscription<ConfigMap>) -> String {
    let change = tokio::time::timeout(std::time::Duration::from_secs(60), subscription.next()).await;
    show(&change.expect("a change"))
}

#[tokio::test(start_paused = true)]
async fn a_subscription_begins_with_everything_and_goes_on_with_changes() {
    let (events, informer) = start();
    let mut early = informer.subscribe();
    events.send(Ok(Event::Init)).unwrap();
    events.send(Ok(Event::InitApply(object("b", "two", 2)))).unwrap();
    events.send(Ok(Event::InitApply(object("a", "one", 1)))).unwrap();
    tokio::task::yield_now().await;
    assert!(!informer.is_synced());
    assert!(early.try_next().is_none(), "nothing before the list is complete");
    events.send(Ok(Event::InitDone)).unwrap();
    informer.synced().await;
    assert_eq!(next(&mut early).await, "=one@1,two@2");
    events.send(Ok(Event::Apply(object("a", "one", 3)))).unwrap();
    events.send(Ok(Event::Apply(object("a", "one", 3)))).unwrap();
    events.send(Ok(Event::Apply(object("c", "six", 4)))).unwrap();
    events.send(Ok(Event::Delete(object("b", "two", 5)))).unwrap();
    assert_eq!(next(&mut early).await, "one@1>one@3");
    assert_eq!(next(&mut early).await, "+six@4");
    assert_eq!(next(&mut early).await, "-two@5");
    assert_eq!(next(&mut informer.subscribe()).await, "=one@3,six@4");
    assert_eq!(informer.list_in("a").len(), 1);
    let one = informer.get(Some("a"), "one").unwrap();
    assert!(one.metadata.managed_fields.is_none() && one.data.is_none(), "stripped");
}

#[tokio::test(start_paused = true)]
async fn a_second_list_brings_only_differences() {
    let (events, informer) = start();
    for event in
        [Event::Init, Event::InitApply(object("a", "x", 1)), Event::InitApply(object("a", "y", 2)), Event::InitDone]
    {
        events.send(Ok(event)).unwrap();
    }
    let mut changes = informer.subscribe();
    assert_eq!(next(&mut changes).await, "=x@1,y@2");
    events.send(Err(watcher::Error::NoResourceVersion)).unwrap();
    let mut reborn = object("a", "y", 9);
    reborn.metadata.uid = Some("another".into());
    for event in [Event::Init, Event::InitApply(reborn), Event::InitApply(object("a", "z", 3)), Event::InitDone] {
        events.send(Ok(event)).unwrap();
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(next(&mut changes).await);
    }
    assert_eq!(seen, ["-y@2", "+y@9", "+z@3", "-x@1"]);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_falls_behind_gets_the_whole_state() {
    let (events, informer) = start();
    events.send(Ok(Event::Init)).unwrap();
    events.send(Ok(Event::InitDone)).unwrap();
    let mut slow = informer.subscribe();
    assert_eq!(next(&mut slow).await, "=");
    for version in 0..=SUBSCRIBER_CAPACITY as u32 {
        events.send(Ok(Event::Apply(object("a", "x", version)))).unwrap();
    }
    events.send(Ok(Event::Apply(object("a", "last", 1)))).unwrap();
    let mut fast = informer.subscribe();
    while informer.get(Some("a"), "last").is_none() {
        next(&mut fast).await;
    }
    assert_eq!(next(&mut slow).await, format!("=last@1,x@{SUBSCRIBER_CAPACITY}"));
    events.send(Ok(Event::Delete(object("a", "x", 9999)))).unwrap();
    assert_eq!(next(&mut slow).await, "-x@9999");
}

#[tokio::test(start_paused = true)]
async fn indexes_follow_changes() {
    let (events, informer) = start();
    events.send(Ok(Event::Init)).unwrap();
    events.send(Ok(Event::InitApply(object("a", "x", 1)))).unwrap();
    events.send(Ok(Event::InitDone)).unwrap();
    informer.synced().await;
    let by_color: fn(&ConfigMap) -> Option<String> = |map| map.metadata.labels.as_ref()?.get("color").cloned();
    informer.add_index("color", by_color);
    let mut changes = informer.subscribe();
    next(&mut changes).await;
    let mut red = object("a", "x", 2);
    red.metadata.labels = Some([("color".to_owned(), "red".to_owned())].into());
    let mut blue = red.clone();
    events.send(Ok(Event::Apply(red))).unwrap();
    next(&mut changes).await;
    assert_eq!(informer.by_index("color", "red").len(), 1);
    blue.metadata.resource_version = Some("3".into());
    blue.metadata.labels = Some([("color".to_owned(), "blue".to_owned())].into());
    events.send(Ok(Event::Apply(blue.clone()))).unwrap();
    next(&mut changes).await;
    assert_eq!((informer.by_index("color", "red").len(), informer.by_index("color", "blue").len()), (0, 1));
    events.send(Ok(Event::Delete(blue))).unwrap();
    next(&mut changes).await;
    assert_eq!(informer.by_index("color", "blue").len(), 0);
}
