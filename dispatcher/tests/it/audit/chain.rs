//! The chain: one, without gaps, whoever writes and whoever chains; and what tampering looks like.

use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clawlink::audit::chain;
use clawlink::audit::verify::{Anchor, Fault, Report, verify};
use clawlink_shared::secret::Secret;
use sqlx::{AssertSqlSafe, PgConnection};

use super::{all_chained, workspace, write};
use crate::app::TestApp;
use crate::wait::eventually;

async fn verified(test: &TestApp, expected: Option<Anchor>) -> Result<Report, Fault> {
    let mut db = test.superuser().await;
    verify(&mut db, &test.app().keys, expected).await.unwrap()
}

/// Entries in the order of the chain, as their numbers in `details`.
async fn chained_numbers(test: &TestApp) -> Vec<i64> {
    sqlx::query_scalar(
        "select (e.details ->> 'n')::bigint from audit_chain c
         join audit_entries e on e.id = c.entry_id
         where e.details ? 'n' order by c.position",
    )
    .fetch_all(test.db())
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_and_two_dispatchers_make_one_gapless_chain() {
    let test = TestApp::start().await;
    let other = test.second_dispatcher().await;
    let workspace = workspace(test.db()).await;
    let writers = (0..8).map(|writer| {
        let db = test.db().clone();
        tokio::spawn(async move {
            for n in 0..20 {
                let mut tx = db.begin().await.unwrap();
                write(&mut tx, workspace, "user:a", n).await;
                write(&mut tx, workspace, "user:b", n).await;
                match (writer + n) % 5 {
                    0 => tx.rollback().await.unwrap(),
                    _ => tx.commit().await.unwrap(),
                }
            }
        })
    });
    let writers = futures::future::join_all(writers);
    let chaining = async {
        for _ in 0..40 {
            let (a, b) = tokio::join!(chain::extend(test.app()), chain::extend(&other.app));
            assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
        }
    };
    let (written, ()) = tokio::join!(writers, chaining);
    assert!(written.iter().all(Result::is_ok));
    assert_eq!(all_chained(&test).await, 8 * 16 * 2);
    let report = verified(&test, None).await.unwrap();
    assert_eq!((report.anchor.count, report.waiting), (256, 0));
    let again = verified(&test, Some(report.anchor)).await;
    assert_eq!(again, Ok(report));
    other.stop().await;
}

#[tokio::test]
async fn an_open_transaction_delays_the_chain_and_is_not_skipped() {
    let test = TestApp::start().await;
    let workspace = workspace(test.db()).await;
    // Wrote first, commits last.
    let mut slow = test.db().begin().await.unwrap();
    write(&mut slow, workspace, "user:a", 1).await;
    // Began before the next one, writes after it.
    let mut late = test.db().begin().await.unwrap();
    sqlx::query("select pg_current_xact_id()")
        .execute(&mut *late)
        .await
        .unwrap();
    let mut db = test.db().acquire().await.unwrap();
    write(&mut db, workspace, "user:b", 3).await;
    for _ in 0..3 {
        assert_eq!(chain::extend(test.app()).await.unwrap(), 0);
    }
    assert_eq!(verified(&test, None).await.unwrap().waiting, 1);
    write(&mut late, workspace, "user:c", 2).await;
    late.commit().await.unwrap();
    for _ in 0..3 {
        assert_eq!(chain::extend(test.app()).await.unwrap(), 0);
    }
    slow.commit().await.unwrap();
    assert_eq!(all_chained(&test).await, 3);
    assert_eq!(chained_numbers(&test).await, [1, 2, 3]);
    assert_eq!(verified(&test, None).await.unwrap().anchor.count, 3);
}

#[tokio::test]
async fn a_log_restored_into_another_server_goes_on() {
    let test = TestApp::start().await;
    let workspace = workspace(test.db()).await;
    let mut db = test.db().acquire().await.unwrap();
    write(&mut db, workspace, "user:a", 1).await;
    write(&mut db, workspace, "user:a", 2).await;
    assert_eq!(all_chained(&test).await, 2);
    // What the earlier server's numbers look like here: never reached; the last was not chained.
    let mut tx = test.superuser().await;
    let mut tx = sqlx::Connection::begin(&mut tx).await.unwrap();
    write(&mut tx, workspace, "user:a", 3).await;
    sqlx::query("update audit_entries set xact = '900000000000'")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(all_chained(&test).await, 3);
    for n in 4..6 {
        write(&mut db, workspace, "user:a", n).await;
        assert_eq!(all_chained(&test).await, i64::try_from(n).unwrap());
    }
    assert_eq!(chained_numbers(&test).await, [1, 2, 3, 4, 5]);
    assert_eq!(verified(&test, None).await.unwrap().anchor.count, 5);
}

async fn run(db: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(db)
        .await
        .unwrap();
}

/// What somebody may do who has the database, and what undoes it; entries are named by their
/// positions, of which there are 9. `saved` and `links` hold the originals.
const TAMPERINGS: [(&str, &str, &str, i64, &str); 8] = [
    (
        "an altered entry",
        "update audit_entries set actor = 'user:z' where id = (select entry_id from links where position = 3)",
        "update audit_entries set actor = 'user:a' where id = (select entry_id from links where position = 3)",
        3,
        "altered",
    ),
    (
        "altered details",
        r#"update audit_entries set details = '{"n": 50}' where details ->> 'n' = '5'"#,
        r#"update audit_entries set details = '{"n": 5}' where details ->> 'n' = '50'"#,
        5,
        "altered",
    ),
    (
        "a removed entry",
        "delete from audit_entries where id = (select entry_id from links where position = 4)",
        "insert into audit_entries overriding system value select s.* from saved s
            join links l on l.entry_id = s.id where l.position = 4",
        4,
        "removed",
    ),
    (
        "a removed link",
        "delete from audit_chain where position = 6",
        "insert into audit_chain select * from links where position = 6",
        6,
        "removed",
    ),
    (
        "an entry removed with its link, those behind moved up",
        "delete from audit_entries where id = (select entry_id from links where position = 2);
         delete from audit_chain where position = 2;
         update audit_chain set position = position + 100 where position > 2;
         update audit_chain set position = position - 101 where position > 100",
        "insert into audit_entries overriding system value select s.* from saved s
            join links l on l.entry_id = s.id where l.position = 2;
         delete from audit_chain; insert into audit_chain select * from links",
        2,
        "altered or moved",
    ),
    (
        "an entry put in",
        "insert into audit_entries (actor, action, outcome, xact)
            select 'user:a', 'task.deleted', 'allowed', s.xact from saved s
            join links l on l.entry_id = s.id where l.position = 7",
        "delete from audit_entries where action = 'task.deleted'",
        8,
        "put in",
    ),
    (
        "two links swapped",
        "update audit_chain set position = 100 - position where position in (5, 6);
         update audit_chain set position = position - 89 where position = 94;
         update audit_chain set position = position - 89 where position = 95",
        "delete from audit_chain; insert into audit_chain select * from links",
        5,
        "altered or moved",
    ),
    (
        "an entry written into the place of another",
        "update audit_chain set entry_id = -1 where position = 8;
         update audit_chain set entry_id = (select entry_id from links where position = 8) where position = 9;
         update audit_chain set entry_id = (select entry_id from links where position = 9) where position = 8",
        "delete from audit_chain; insert into audit_chain select * from links",
        8,
        "altered or moved",
    ),
];

#[tokio::test]
async fn every_kind_of_tampering_is_found_and_the_first_bad_position_named() {
    let mut test = TestApp::start().await;
    let workspace = workspace(test.db()).await;
    let mut db = test.superuser().await;
    for n in 1..=9 {
        write(&mut db, workspace, "user:a", n).await;
    }
    assert_eq!(all_chained(&test).await, 9);
    let sound = verified(&test, None).await.unwrap();
    // No loop shall repair or extend anything.
    test.dispatcher.end().await;
    run(
        &mut db,
        "create table saved as select * from audit_entries;
         create table links as select * from audit_chain",
    )
    .await;
    for (name, tamper, undo, position, what) in TAMPERINGS {
        run(&mut db, tamper).await;
        let fault = verified(&test, None).await.expect_err(name);
        assert_eq!(fault.position, position, "{name}: {fault}");
        assert!(fault.what.contains(what), "{name}: {fault}");
        let (code, said) = command(&test, &[]);
        assert_eq!(code, Some(1), "{name}");
        assert!(said.contains(&format!("position {position}:")), "{said}");
        run(&mut db, undo).await;
        assert_eq!(verified(&test, None).await, Ok(sound), "{name} undone");
    }
    let anchor = sound.anchor.to_string();
    let (code, said) = command(&test, &["--expect", &anchor]);
    assert_eq!(
        (code, said.lines().last()),
        (Some(0), Some(anchor.as_str()))
    );
    // The end cut off: no chain shows that, an anchor does.
    run(
        &mut db,
        "delete from audit_entries where id in (select entry_id from links where position > 7);
         delete from audit_chain where position > 7",
    )
    .await;
    let cut = verified(&test, None).await.unwrap();
    assert_eq!(cut.anchor.count, 7);
    let fault = verified(&test, Some(sound.anchor)).await.unwrap_err();
    assert_eq!(fault.position, 8);
    assert_eq!(command(&test, &["--expect", &anchor]).0, Some(1));
    // And a chain that was made anew, with a link of somebody without the key.
    run(
        &mut db,
        "insert into audit_entries overriding system value select s.* from saved s
            join links l on l.entry_id = s.id where l.position = 8;
         insert into audit_chain select position, entry_id, sha256('guess'), key_id
            from links where position = 8",
    )
    .await;
    assert_eq!(verified(&test, None).await.unwrap_err().position, 8);
}

#[tokio::test]
async fn links_of_keys_that_were_replaced_long_ago_are_checked_with_the_list_of_them() {
    let key = |byte: u8| BASE64_STANDARD.encode([byte; 32]);
    let mut test = TestApp::start().await;
    let workspace = workspace(test.db()).await;
    let mut db = test.superuser().await;
    write(&mut db, workspace, "user:a", 1).await;
    all_chained(&test).await;
    test.dispatcher.end().await;
    // Replaced twice: the first key is known to nobody who serves.
    let first = crate::app::SECRET_KEY.to_owned();
    for (n, key, old) in [(2, key(2), first.clone()), (3, key(3), key(2))] {
        let mut dispatcher = test
            .dispatcher_with(|settings| {
                settings.secret_key = Some(Secret::new(key));
                settings.secret_key_old = Some(Secret::new(old));
            })
            .await;
        write(&mut db, workspace, "user:a", n).await;
        eventually("the entry is chained", async || {
            let links: i64 = sqlx::query_scalar("select count(*) from audit_chain")
                .fetch_one(&mut test.superuser().await)
                .await
                .unwrap();
            (links == n as i64).then_some(())
        })
        .await;
        dispatcher.end().await;
    }
    let with = |older: &str| {
        let (newest, before) = (key(3), key(2));
        command_with(
            &test,
            &[
                ("CLAWLINK_SECRET_KEY", newest.as_str()),
                ("CLAWLINK_SECRET_KEY_OLD", before.as_str()),
                ("CLAWLINK_AUDIT_OLDER_KEYS", older),
            ],
            &[],
        )
    };
    let (code, said) = with("");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("position 1:") && said.contains("CLAWLINK_AUDIT_OLDER_KEYS"));
    for older in [first.clone(), format!("{}, {first}", key(9))] {
        let (code, said) = with(&older);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.lines().last().unwrap().starts_with("3:"), "{said}");
    }
    // A listed key makes no altered entry good.
    run(
        &mut db,
        "update audit_entries set actor = 'user:b' where details ->> 'n' = '1'",
    )
    .await;
    let (code, said) = with(&first);
    assert_eq!(code, Some(1));
    assert!(said.contains("position 1:"), "{said}");
}

/// `clawlink audit verify`: its exit code and what it said.
fn command(test: &TestApp, more: &[&str]) -> (Option<i32>, String) {
    let key = [("CLAWLINK_SECRET_KEY", crate::app::SECRET_KEY)];
    command_with(test, &key, more)
}

fn command_with(
    test: &TestApp,
    environment: &[(&str, &str)],
    more: &[&str],
) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_clawlink"))
        .args(["audit", "verify"])
        .args(more)
        .env_remove("DATABASE_MIGRATION_URL")
        .env("DATABASE_URL", test.database_url())
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), said)
}
