//! Prefers nodes that have the pod's images already.

use crate::cache::Cache;
use crate::framework::{MAX_SCORE, Plugin};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// Images smaller than this are not worth a thought, in bytes.
const MIN_BYTES: i64 = 23 << 20;
/// Per container: more than this counts no more, in bytes.
const MAX_BYTES_PER_CONTAINER: i64 = 1000 << 20;

/// `ImageLocality`
#[derive(Debug)]
pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn scores(&self, pod: &PodInfo) -> bool {
        !pod.images.is_empty()
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo, cache: &Cache) -> i64 {
        let nodes = i64::try_from(cache.node_count().max(1)).unwrap_or(i64::MAX);
        // An image counts the more the more nodes have it, lest one node draw all pods.
        let scaled = |image: &String| {
            let size = node.images.get(image).copied().unwrap_or(0);
            let spread = i64::try_from(cache.nodes_with_image(image)).unwrap_or(0);
            size.saturating_mul(spread) / nodes
        };
        let sum: i64 = pod.images.iter().map(scaled).fold(0, i64::saturating_add);
        let max = MAX_BYTES_PER_CONTAINER * i64::try_from(pod.images.len()).unwrap_or(1);
        MAX_SCORE * (sum.clamp(MIN_BYTES, max) - MIN_BYTES) / (max - MIN_BYTES)
    }
}
