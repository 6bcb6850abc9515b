//! Two workspaces, random operations, one law: neither ever sees or changes what is the other's.
//!
//! Both call every route of the table, with their own ids and with each other's, in paths,
//! queries and bodies; a worker runs whatever is queued. Every text of a workspace carries its
//! marker, and ids are numbers so large that they occur nowhere by chance. After each operation
//! the other workspace's rows (of all tables that information_schema knows) and objects are what
//! they were before it, and no answer, error, header or stream holds the other's marker or an id
//! that the caller had not named itself. `CLAWLINK_TEST_SEED` repeats a run. Two runs in which the
//! database itself forgets a workspace show that this finds it.
//!
//! People belong to no workspace: their addresses carry no marker.

mod dump;
mod operations;
mod side;

use std::collections::BTreeSet;

use clawlink::http::{self, routes::Route};
use rand::RngExt as _;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

use super::app::TestApp;
use super::queue::seeded;
use super::wait::eventually;
use super::worker::{Held, Worker};
use operations::{Operation, Reach};
use side::Side;

/// Random operations after each side has called every route once.
const STEPS: usize = 250;
/// One operation in so many is a worker's run of whatever is queued.
const RUN_EVERY: usize = 6;
/// Loops are poked, never periodic: what changes a row is an operation or its effects.
const NEVER: Duration = Duration::from_secs(3600);
/// Routes that must have served something of the caller's own, or the test shows nothing.
const ENOUGH: usize = 70;

struct World {
    test: TestApp,
    sides: [Side; 2],
    routes: Vec<Route>,
    /// Routes that served something.
    served: BTreeSet<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workspaces_neither_see_nor_change_each_other() {
    let world = World::start().await;
    let served = world.play(STEPS).await;
    assert!(
        served.len() >= ENOUGH,
        "{} served: {served:#?}",
        served.len()
    );
}

/// Makes a read forget whose its rows are: a new agent tells of another workspace's.
const LEAK: &str = "
    create function leak() returns trigger language plpgsql as $$ begin
        new.description := (select name from agents where workspace_id <> new.workspace_id limit 1);
        return new;
    end $$;
    create trigger leak before insert on agents for each row execute function leak()";

#[tokio::test(flavor = "multi_thread")]
#[should_panic = "leaked"]
async fn a_read_that_forgets_its_workspace_is_found() {
    let world = World::start().await;
    world.break_by(LEAK).await;
    world.play(0).await;
}

/// Makes a write forget whose its rows are: a new agent changes those of others.
const SPILL: &str = "
    create function spill() returns trigger language plpgsql as $$ begin
        update agents set description = 'spilled' where workspace_id <> new.workspace_id;
        return new;
    end $$;
    create trigger spill after insert on agents for each row execute function spill()";

#[tokio::test(flavor = "multi_thread")]
#[should_panic = "of the other workspace changed"]
async fn a_write_that_forgets_its_workspace_is_found() {
    let world = World::start().await;
    world.break_by(SPILL).await;
    world.play(0).await;
}

impl World {
    /// Makes the database do what a faulty statement would.
    async fn break_by(&self, sql: &'static str) {
        let mut db = self.test.superuser().await;
        sqlx::raw_sql(sql).execute(&mut db).await.unwrap();
    }

    /// Every route once for each side, then so many random operations; the routes that served.
    async fn play(mut self, steps: usize) -> BTreeSet<String> {
        let (_, mut random) = seeded();
        for me in [0, 1] {
            self.furnish(me, &mut random).await;
        }
        for step in 1..=steps {
            if step % RUN_EVERY == 0 {
                self.run_something().await;
                continue;
            }
            let me = random.random_range(0..2);
            let route = &self.routes[random.random_range(0..self.routes.len())];
            let operation = self.draw(me, route, Reach::Mixed, &mut random);
            self.act(me, &operation).await;
        }
        for me in [0, 1] {
            self.hear_all(me).await;
        }
        self.served
    }
}

impl World {
    async fn start() -> Self {
        let test = TestApp::start_with(|settings| settings.tuning.tick = NEVER).await;
        dump::spread_ids(&test).await;
        let sides = [Side::start(&test).await, Side::start(&test).await];
        let (_, routes) = http::service(test.app());
        let routes = routes.into_iter().filter(operations::is_played).collect();
        Self {
            test,
            sides,
            routes,
            served: BTreeSet::new(),
        }
    }

    fn draw(&self, me: usize, route: &Route, reach: Reach, random: &mut StdRng) -> Operation {
        operations::draw(route, &self.sides[me], &self.sides[1 - me], reach, random)
    }

    /// Makes one of everything, then calls every route with what is there.
    async fn furnish(&mut self, me: usize, random: &mut StdRng) {
        let routes = self.routes.clone();
        let is_first =
            |route: &&Route| operations::FIRST.contains(&operations::name(route).as_str());
        for route in routes.iter().filter(is_first).chain(&routes) {
            if route.method != Method::DELETE {
                let operation = self.draw(me, route, Reach::Own, random);
                self.act(me, &operation).await;
            }
        }
    }

    async fn act(&mut self, me: usize, operation: &Operation) {
        self.settle().await;
        let other = 1 - me;
        let before = dump::of(&self.test, &self.sides[other]).await;
        let (status, answer) = self.sides[me].ask(&self.test, operation).await;
        self.settle().await;
        let after = dump::of(&self.test, &self.sides[other]).await;
        let said = format!("{operation:?}: {status} {answer}");
        dump::must_be_equal(&before, &after, &said);
        if operation.is_at_foreign && !operation.name.contains("/api/audit/") {
            assert!(
                (400..500).contains(&status),
                "served what is foreign: {said}"
            );
        }
        assert!(status < 500, "{said}");
        if status < 400 {
            self.served.insert(operation.name.clone());
        }
        let me_now = &self.sides[me];
        let secrets = self.sides[other].secrets();
        let leaked = me_now.leaked(&secrets, &answer, &operation.named);
        assert_eq!(leaked, None, "leaked by {said}");
        self.sides[me].said.extend(operation.said.iter().cloned());
        for side in &mut self.sides {
            side.learn(&self.test).await;
        }
        self.check_streams();
    }

    fn check_streams(&mut self) {
        for me in [0, 1] {
            let secrets = self.sides[1 - me].secrets();
            let heard = self.sides[me].take_heard();
            let leaked = self.sides[me].leaked(&secrets, &heard, &[]);
            assert_eq!(leaked, None, "on a stream: {heard}");
        }
    }

    /// A worker takes what comes next, tries its lease on what is the other's, and finishes.
    async fn run_something(&mut self) {
        self.settle().await;
        let worker = Worker::new(&self.test.dispatcher);
        let Some(held) = worker.claim_as(Uuid::new_v4(), &["shell"], 0).await else {
            return;
        };
        let workspace: i64 =
            sqlx::query_scalar("select workspace_id from executions where id = $1")
                .bind(held.id())
                .fetch_one(self.test.db())
                .await
                .unwrap();
        let me = usize::from(self.sides[1].workspace.0 == workspace);
        let other = 1 - me;
        self.settle().await;
        let before = dump::of(&self.test, &self.sides[other]).await;
        let mut answers = serde_json::to_string(&held.assignment).unwrap();
        held.ack().await;
        held.state("running").await;
        held.events(1..=2).await;
        let archive = held.upload(b"archive").await;
        answers.push_str(&archive.key);
        answers.push_str(&self.reach_for_foreign(&held, other).await);
        let report = json!({"outcome": "completed", "lastN": 2, "archive": archive,
            "result": self.sides[me].marker, "branch": self.sides[me].marker, "pushed": true});
        answers.push_str(&held.must("complete", &report).await.to_string());
        self.settle().await;
        let after = dump::of(&self.test, &self.sides[other]).await;
        dump::must_be_equal(&before, &after, "a worker's run");
        let leaked = self.sides[me].leaked(&self.sides[other].secrets(), &answers, &[]);
        assert_eq!(leaked, None, "to a worker: {answers}");
        for side in &mut self.sides {
            side.learn(&self.test).await;
        }
        self.check_streams();
    }

    /// Shows the lease at executions of the other workspace; the refusals' texts.
    async fn reach_for_foreign(&self, held: &Held, other: usize) -> String {
        let Some(foreign) = self.sides[other].ids("execution").last() else {
            return String::new();
        };
        let mut texts = String::new();
        for call in ["ack", "heartbeat", "events", "archive", "complete"] {
            let path = format!("/worker/executions/{foreign}/{call}");
            let body = json!({"outcome": "completed", "lastN": 0, "size": 7});
            let request = held.authorized(self.test.http.post(self.test.url(&path)));
            let answer = request.json(&body).send().await.unwrap();
            let status = answer.status().as_u16();
            assert!((400..500).contains(&status), "{path}: {status}");
            texts.push_str(&answer.text().await.unwrap().replace(foreign.as_str(), ""));
        }
        texts
    }

    /// Waits until all effects were performed.
    async fn settle(&self) {
        eventually("all effects are performed", || async {
            let left = sqlx::query_scalar::<_, i64>("select count(*) from outbox");
            (left.fetch_one(self.test.db()).await.unwrap() == 0).then_some(())
        })
        .await;
    }

    /// Makes a last change and waits until the side's own stream tells it.
    async fn hear_all(&mut self, me: usize) {
        let last = format!("{}-last", self.sides[me].marker);
        let operation = Operation::simple(Method::POST, "/api/projects", json!({"name": last}));
        self.act(me, &operation).await;
        let side = &self.sides[me];
        eventually("the last change is on the stream", || async {
            side.has_heard(&last).then_some(())
        })
        .await;
        self.check_streams();
    }
}
