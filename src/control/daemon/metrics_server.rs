//! The server of metrics and health, on its current address if it has one.

use std::sync::Arc;

use mb_core::config::Config;
use tokio::task::JoinHandle;

use crate::control::control_socket::ControlSocket;
use crate::control::metrics::{Watch, serve};
use crate::control::tasks::keep_running;

/// The server, which may have nowhere to serve. The store is asked how it is in any case, since the
/// log tells, too.
pub(super) struct MetricsServer {
    watch: Arc<Watch>,
    asking_store: JoinHandle<()>,
    serving: Option<(ControlSocket, JoinHandle<()>)>,
}

impl MetricsServer {
    pub(super) fn start(socket: Option<ControlSocket>, watch: Watch) -> MetricsServer {
        let watch = Arc::new(watch);
        let asking = Arc::clone(&watch);
        let asking_store = tokio::spawn(keep_running("store-check", move || {
            let watch = Arc::clone(&asking);
            async move { watch.ask_store().await }
        }));
        let mut server = MetricsServer { watch, asking_store, serving: None };
        server.move_to(socket);
        server
    }

    /// Serves on `socket` from now on. Connections to the old address are cut.
    pub(super) fn move_to(&mut self, socket: Option<ControlSocket>) {
        self.stop_serving();
        self.serving = socket.map(|socket| {
            let (served, watch) = (socket.clone(), Arc::clone(&self.watch));
            let serving = tokio::spawn(keep_running("metrics", move || serve(served.clone(), Arc::clone(&watch))));
            (socket, serving)
        });
    }

    /// Judges by another configuration.
    pub(super) fn configure(&self, config: &Config) {
        self.watch.configure(config.repository_scan_interval);
    }

    /// Where it serves.
    pub(super) fn socket(&self) -> Option<&ControlSocket> {
        self.serving.as_ref().map(|(socket, _)| socket)
    }

    /// Ends at once: nobody's download depends on it.
    pub(super) fn stop(&mut self) {
        self.asking_store.abort();
        self.stop_serving();
    }

    fn stop_serving(&mut self) {
        if let Some((_, serving)) = self.serving.take() {
            serving.abort();
        }
    }
}
