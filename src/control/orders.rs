//! What operators order of the running daemon, by command or by signal, and its answer.

use tokio::sync::{mpsc, oneshot};

/// Orders that wait for the daemon; more are refused. It takes them one after the other.
const WAITING: usize = 8;

/// The answer to an order: what the operator should know, or why it was not done.
pub type Answer = Result<Vec<String>, String>;

/// An order, and where its answer goes.
#[derive(Debug)]
pub struct Order {
    /// What is to be done.
    pub task: Task,
    /// Where the answer goes; nobody may be left to read it.
    pub answer: oneshot::Sender<Answer>,
}

/// What can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Load the configuration, the geo databases and the templates again.
    Reload,
    /// Start the program again and hand over to it.
    Upgrade,
}

/// Gives orders.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// A way to give orders, and one to take them.
    pub fn channel() -> (Orders, mpsc::Receiver<Order>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Orders(sender), receiver)
    }

    /// Gives an order and waits for the answer.
    ///
    /// # Errors
    /// Why it was not done.
    pub async fn give(&self, task: Task) -> Answer {
        let (answer, answered) = oneshot::channel();
        match self.0.try_send(Order { task, answer }) {
            Ok(()) => answered.await.unwrap_or_else(|_| Err("the daemon is ending".to_owned())),
            Err(mpsc::error::TrySendError::Full(_)) => Err("the daemon is busy; try again".to_owned()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err("the daemon is ending".to_owned()),
        }
    }
}
