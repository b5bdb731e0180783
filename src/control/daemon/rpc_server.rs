//! The RPC server, which is started again when it ends by itself.

use mb_core::config::Config;
use mb_core::supervise::RESTART_PAUSE;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::control::control_socket::ControlSocket;
use crate::control::rpc;
use crate::control::tasks::keep_running;

/// The RPC server on its current address.
pub(super) struct RpcServer {
    socket: ControlSocket,
    service: rpc::Service,
    /// Dropped to stop it.
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl RpcServer {
    /// Serves until it is stopped. A server that ends by itself, by a panic or an error, is started again.
    pub(super) fn start(socket: ControlSocket, service: rpc::Service) -> RpcServer {
        let (stop, stopped) = watch::channel(());
        let (served, its_service) = (socket.clone(), service.clone());
        let task = tokio::spawn(keep_running("rpc", move || {
            let (socket, service, stopped) = (served.clone(), its_service.clone(), stopped.clone());
            async move {
                loop {
                    let mut waiting = stopped.clone();
                    let is_stopped = async move {
                        // Nothing is ever sent: this is an error when the sender is gone.
                        let _ = waiting.changed().await;
                    };
                    match rpc::serve(socket.clone(), service.clone(), is_stopped).await {
                        Ok(()) => return,
                        Err(error) if stopped.has_changed().is_err() => return tracing::error!("{error}"),
                        Err(error) => tracing::error!("{error}; it is started again"),
                    }
                    tokio::time::sleep(RESTART_PAUSE).await;
                }
            }
        }));
        RpcServer { socket, service, stop, task }
    }

    /// Where it serves.
    pub(super) fn socket(&self) -> &ControlSocket {
        &self.socket
    }

    /// Asks for the password of another configuration from now on.
    pub(super) fn change_password(&self, config: &Config) {
        self.service.password_check().change(config.rpc_password.clone());
    }

    /// Serves on `socket` from now on. Calls under way on the old address are finished.
    pub(super) fn move_to(&mut self, socket: ControlSocket) {
        let service = self.service.clone();
        // Its task ends by itself, and the old socket with it.
        drop(std::mem::replace(self, RpcServer::start(socket, service)));
    }

    /// Ends after the calls under way, or soon.
    pub(super) async fn stop(self) {
        drop(self.stop);
        // Has reported its own trouble.
        let _ = self.task.await;
    }
}
