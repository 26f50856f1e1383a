//! Which tasks and array jobs blocks become. Pure.

use std::collections::BTreeMap;

use super::request::{Request, Shape};
use crate::plan::Block;

/// An array job that is to be submitted: what each of its tasks measures.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Resources of each task.
    pub shape: Shape,
    /// The blocks of each task, in running order.
    pub tasks: Vec<Vec<Block>>,
}

/// Deals blocks to tasks, and tasks to array jobs: one for each shape of resources, split where a cluster takes no more than `most`
/// tasks in one.
pub fn arrays(blocks: Vec<Block>, request: &Request, most: usize) -> Vec<Array> {
    let mut by_shape: BTreeMap<Shape, Vec<Block>> = BTreeMap::new();
    for block in blocks {
        let Some((server, _)) = block.server() else { continue };
        by_shape.entry(Shape::of(server, request.nodes_per_task)).or_default().push(block);
    }
    let mut arrays = Vec::new();
    for (shape, blocks) in by_shape {
        let tasks = deal(blocks, request.tasks);
        let mut tasks = tasks.into_iter().peekable();
        while tasks.peek().is_some() {
            arrays.push(Array { shape, tasks: tasks.by_ref().take(most.max(1)).collect() });
        }
    }
    arrays
}

/// One block to each task; with `tasks`, as evenly as can be to so many, neighbours together.
fn deal(blocks: Vec<Block>, tasks: Option<u32>) -> Vec<Vec<Block>> {
    let most = tasks.and_then(|tasks| usize::try_from(tasks).ok()).unwrap_or(usize::MAX).clamp(1, blocks.len().max(1));
    let (each, more) = (blocks.len() / most, blocks.len() % most);
    let mut blocks = blocks.into_iter();
    (0..most)
        .map(|task| blocks.by_ref().take(each + usize::from(task < more)).collect())
        .filter(|t: &Vec<_>| !t.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Engine;
    use crate::plan::{blocks, expand, fixture::grid};

    fn all() -> Vec<Block> {
        let plan = expand(&grid(&["m"], "1,2", Engine::Sim));
        blocks(plan.experiments.into_iter().map(std::sync::Arc::new), true)
    }

    fn sizes(arrays: &[Array]) -> Vec<(u32, Vec<usize>)> {
        arrays.iter().map(|array| (array.shape.gpus_per_node, array.tasks.iter().map(Vec::len).collect())).collect()
    }

    #[test]
    fn each_shape_has_its_array_and_each_block_its_task() {
        assert_eq!(sizes(&arrays(all(), &Request::default(), 1001)), [(1, vec![1; 3]), (2, vec![1; 3])]);
    }

    #[test]
    fn an_array_has_no_more_tasks_than_the_cluster_takes() {
        assert_eq!(
            sizes(&arrays(all(), &Request::default(), 2)),
            [(1, vec![1; 2]), (1, vec![1]), (2, vec![1; 2]), (2, vec![1])]
        );
    }

    #[test]
    fn few_tasks_share_the_blocks() {
        let request = Request { tasks: Some(2), ..Request::default() };
        assert_eq!(sizes(&arrays(all(), &request, 1001)), [(1, vec![2, 1]), (2, vec![2, 1])]);
        let one = Request { tasks: Some(1), ..Request::default() };
        let dealt = arrays(all(), &one, 1001);
        let names: Vec<usize> = dealt[0].tasks[0].iter().map(|block| block.experiments[0].index).collect();
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(arrays(Vec::new(), &one, 10), []);
    }
}
