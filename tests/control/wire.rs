//! What a client other than ours meets on the wire.

use mirrorbits::control::rpc::proto::cli_client::CliClient;
use mirrorbits::control::rpc::proto::{ChangeStatusRequest, Mirror, MirrorIdRequest, ScanMirrorRequest};
use mirrorbits::control::rpc::{METADATA_KEY, NOTICE_KEY};
use tonic::codegen::tokio_stream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::server::Server;

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap()
}

fn with_password<T>(message: T, password: &'static str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(METADATA_KEY, password.parse().unwrap());
    request
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.unwrap_err().code()
}

#[tokio::test]
async fn ids_that_name_no_mirror_are_a_failed_precondition() {
    let server = Server::start("");
    let mut client = CliClient::new(channel(&server).await);
    for id in [-1, 0, 1] {
        let statuses = [
            client.mirror_info(MirrorIdRequest { id }).await.unwrap_err(),
            client.remove_mirror(MirrorIdRequest { id }).await.unwrap_err(),
            client.change_status(ChangeStatusRequest { id, enabled: true }).await.unwrap_err(),
            client.scan_mirror(ScanMirrorRequest { id, ..Default::default() }).await.unwrap_err(),
            client
                .update_mirror(Mirror { id, name: "a".into(), http_url: "http://a/".into(), ..Default::default() })
                .await
                .unwrap_err(),
        ];
        for status in statuses {
            assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "invalid mirror id"), "{id}");
        }
    }
}

#[tokio::test]
async fn every_call_needs_the_password() {
    let server = Server::start("secret");
    let mut client = CliClient::new(channel(&server).await);
    assert_eq!(code(client.ping(()).await), Code::Unauthenticated);
    assert_eq!(code(client.list(with_password((), "secreT")).await), Code::Unauthenticated);
    assert_eq!(code(client.upgrade(()).await), Code::Unauthenticated);
    client.ping(with_password((), "secret")).await.unwrap();
}

#[tokio::test]
async fn times_are_always_set_and_given_values_are_kept() {
    let server = Server::start("");
    let mut client = CliClient::new(channel(&server).await);
    let tokyo = Mirror {
        name: "tokyo".into(),
        http_url: "127.0.0.1:8080".into(),
        latitude: 35.68,
        longitude: 139.69,
        continent_code: "as".into(),
        country_codes: "jp".into(),
        ..Mirror::default()
    };
    let added = client.add_mirror(tokyo).await.unwrap().into_inner();
    assert_eq!((added.latitude, added.country.as_str(), added.continent.as_str()), (35.68, "JP", "AS"));
    assert!(added.warnings.is_empty(), "{:?}", added.warnings);
    let listed = client.list(()).await.unwrap().into_inner().mirrors.remove(0);
    assert_eq!((listed.id, listed.http_url.as_str()), (1, "127.0.0.1:8080/"));
    for time in [listed.state_since, listed.last_sync, listed.last_successful_sync, listed.last_mod_time] {
        assert!(time.is_some(), "clients of Mirrorbits take a missing time for an error");
    }
}

#[tokio::test]
async fn orders_are_answered_by_the_daemon() {
    let server = Server::start("");
    let mut client = CliClient::new(channel(&server).await);
    let done = client.reload(()).await.unwrap();
    let notice = done.metadata().get_bin(NOTICE_KEY).unwrap().to_bytes().unwrap();
    assert_eq!(notice, "Shards: wait – for a restart");
    let refused = client.upgrade(()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "there is no program"));
}

#[tokio::test]
async fn the_service_describes_itself() {
    let server = Server::start("secret");
    let mut client = ServerReflectionClient::new(channel(&server).await);
    let list = || {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        tokio_stream::iter([ServerReflectionRequest { host: String::new(), message_request }])
    };
    assert_eq!(code(client.server_reflection_info(list()).await), Code::Unauthenticated);
    let mut answers = client.server_reflection_info(with_password(list(), "secret")).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = answer else { panic!("{answer:?}") };
    assert!(services.service.iter().any(|service| service.name == "CLI"), "{services:?}");
}
