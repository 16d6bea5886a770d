//! A request of the proxy's own, or a copy of one: sent once, to whichever RS of a pool has its turn.

use std::net::IpAddr;
use std::rc::Rc;

use super::pick::pick;
use crate::apart::apart;
use crate::body::Body;
use crate::error::Error;
use crate::message::{RequestHead, ResponseHead};
use crate::net::clock;
use crate::pool::Excluded;
use crate::state::View;
use crate::upstream::{Exchange, Place, Upstreams};

/// The head of the answer, and the exchange that its body comes from.
pub(super) async fn ask(
    view: &Rc<View>,
    upstreams: &Rc<Upstreams>,
    pool: usize,
    head: &RequestHead,
    client: IpAddr,
    body: Body,
) -> Result<(Exchange, Box<ResponseHead>), Error> {
    let (server, grant) = pick(view, pool, &Excluded::default(), head, client).await?;
    let link = match upstreams.take(view, pool, server, clock::now()) {
        Some(link) => link,
        None => apart(|| upstreams.connect(view, pool, server)).await?,
    };
    let patience = view.pool(pool).read_timeout;
    let place = Place { upstreams: Rc::clone(upstreams), view: Rc::clone(view), pool, server, grant };
    let mut exchange = Exchange::new(link, place, head, body, patience);
    let answer = exchange.head(&mut |_, _| {}).await?;
    Ok((exchange, answer))
}
