//! The peers, each driven over memory through its public interface.

use super::{Work, PAIRS};
use fastcgi_client::io::{AsyncRead, AsyncWrite};
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_fastcgi::{RequestResult, Requests};

#[cfg(feature = "agpl-peer")]
pub fn walk<'a>(stream: &'a [u8], works: &mut Vec<Work<'a>>) {
    use bytes::{Buf, Bytes};
    let stream = Bytes::copy_from_slice(stream);
    works.push((
        "async-fcgi 0.5 (counted references)",
        Box::new(move || {
            let (mut rest, mut total) = (black_box(stream.clone()), 0);
            while rest.has_remaining() {
                let pair = async_fcgi::fastcgi::NameValuePair::parse(&mut rest);
                total += pair.name_data.len() + pair.value_data.len();
            }
            total
        }),
    ));
}

#[cfg(not(feature = "agpl-peer"))]
pub fn walk<'a>(_stream: &'a [u8], _works: &mut Vec<Work<'a>>) {}

pub fn head<'a>(head: &'a [u8], works: &mut Vec<Work<'a>>) {
    works.push((
        "tokio-fastcgi 1.3",
        Box::new(move || {
            pollster::block_on(async {
                let mut requests = Requests::new(black_box(head), Vec::new(), 1, 1);
                let request = requests.next().await.ok().flatten().expect("a request");
                let count = request.params_iter().expect("params").count();
                count
            })
        }),
    ));
}

pub fn body<'a>(input: &'a [u8], works: &mut Vec<Work<'a>>) {
    use std::io::Read;
    works.push((
        "tokio-fastcgi 1.3, into a Vec",
        Box::new(move || {
            pollster::block_on(async {
                let mut requests = Requests::new(black_box(input), Vec::new(), 1, 1);
                let request = requests.next().await.ok().flatten().expect("a request");
                let mut body = Vec::new();
                request.get_stdin().read_to_end(&mut body).expect("memory");
                black_box(&body).len()
            })
        }),
    ));
}

pub fn serve<'a>(head: &'a [u8], body: &'a [u8], works: &mut Vec<Work<'a>>) {
    works.push((
        "tokio-fastcgi 1.3",
        Box::new(move || {
            pollster::block_on(async {
                let mut requests = Requests::new(black_box(head), Vec::with_capacity(64 * 1024), 1, 1);
                let request = requests.next().await.ok().flatten().expect("a request");
                let answer = |request: std::sync::Arc<tokio_fastcgi::Request<_>>| async move {
                    let mut out = request.get_stdout();
                    out.write(b"Content-Type: text/plain\r\n\r\n").await.expect("memory");
                    out.write(body).await.expect("memory");
                    RequestResult::Complete(0)
                };
                request.process(answer).await.expect("memory");
                body.len() + 28
            })
        }),
    ));
}

/// A server in memory: takes whatever is written, and has the answer ready.
struct Canned<'a> {
    answer: &'a [u8],
    sent: Vec<u8>,
}

impl AsyncRead for Canned<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<std::io::Result<usize>> {
        let count = into.len().min(self.answer.len());
        let (now, later) = self.answer.split_at(count);
        into[..count].copy_from_slice(now);
        self.answer = later;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Canned<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.sent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

pub fn client<'a>(input: &'a [u8], works: &mut Vec<Work<'a>>) {
    use fastcgi_client::{io, Client, Params, Request};
    works.push((
        "fastcgi-client 0.12",
        Box::new(move || {
            pollster::block_on(async {
                let client = Client::new(Canned { answer: black_box(input), sent: Vec::with_capacity(2048) });
                let mut params = Params::default();
                for (name, value) in PAIRS {
                    params.insert(name.into(), value.into());
                }
                let answer = client.execute_once(Request::new(params, io::empty())).await.expect("an answer");
                answer.stdout.map_or(0, |body| black_box(body).len())
            })
        }),
    ));
}
