use super::*;

fn faults(text: &str) -> Vec<String> {
    RuleFile::read(text).unwrap_err().faults.iter().map(ToString::to_string).collect()
}

const GOOD: &str = r#"
groups:
  - name: leaks
    interval: 30s
    limit: 20
    labels: {team: platform, tier: one}
    rules:
      - alert: PiiLeakRate
        sql: |
          SELECT service, count(*) AS value FROM redactions WHERE timestamp > $at - INTERVAL '5 minutes' GROUP BY 1
        for: 2m
        keep_firing_for: 5m
        labels:
          severity: "{{ if_not }}"
        annotations:
          summary: "{{ $labels.service }} leaks"
      - alert: Burst
        stream: {count: redaction, of: payment_card, window: 1m, at_least: 5}
        no_data: keep
        on_error: alert
      - alert: Burst
        stream: {count: text, of: "panic", window: 10s, at_least: 1, service: api, by: all}
      - record: service:lines:5m
        sql: SELECT service, count(*) AS value FROM logs GROUP BY service;
        labels: {tier: two}
"#;

#[test]
fn a_file_in_prometheus_shape_is_read() {
    let file = RuleFile::read(&GOOD.replace("{{ if_not }}", "high")).unwrap();
    let [group] = file.groups.as_slice() else { panic!("one group") };
    assert_eq!((group.name.as_str(), group.interval), ("leaks", Some(Duration::from_secs(30))));
    let ids: Vec<_> = group
        .rules
        .iter()
        .map(|rule| match rule {
            Rule::Alert(rule) => rule.id.as_str(),
            Rule::Record(rule) => rule.id.as_str(),
        })
        .collect();
    assert_eq!(ids, ["leaks/PiiLeakRate", "leaks/Burst", "leaks/Burst#2", "leaks/service:lines:5m"]);
    let Rule::Alert(first) = &group.rules[0] else { panic!("an alert rule") };
    assert_eq!((first.hold.as_secs(), first.keep_firing_for.as_secs(), first.limit), (120, 300, 20));
    assert_eq!(
        first.labels.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["team", "tier", "severity"]
    );
    let Rule::Alert(second) = &group.rules[1] else { panic!("an alert rule") };
    assert_eq!((second.no_data, second.on_error), (WhenMissing::Keep, WhenMissing::Alert));
    let Rule::Record(record) = &group.rules[3] else { panic!("a record rule") };
    assert_eq!(record.labels, Labels::from_iter([("team", "platform"), ("tier", "two")]));
}

#[test]
fn every_fault_is_told_at_once_with_its_place() {
    let text = "\
groups:
  - name: one
    interval: 5
    rules:
      - alert: A
        expr: rate(x[5m]) > 1
        fro: 5m
      - alert: B
        sql: SELECT $1
        for: soon
      - record: 1bad
        sql: SELECT 1
        for: 5m
      - alert: C
        record: c
        sql: SELECT 1
      - alert: D
        stream: {count: words, window: 2d, at_least: 0}
        annotations: {summary: \"{{ range }}\"}
        labels: {alertname: x, severity: 5}
        no_data: maybe
  - name: one
  - rules: []
extra: 1
";
    let found = faults(text);
    for expected in [
        "3:15: `interval` is text, not a number: write it in quotes",
        "6:15: `expr` (PromQL or LogQL) cannot be evaluated yet",
        "7:9: unknown key `fro` in a rule; known: `for`?",
        "9:14: `sql` knows no parameter but $at",
        "10:14: `for`: \"soon\" is no duration",
        "11:17: `record` is a series name",
        "11:9: a record rule has no `for`",
        "14:9: a rule is either `alert` or `record`, not both",
        "18:25: `count` is redaction, level, text or lines",
        "18:17: `window` is a duration from 1s to 1d",
        "18:17: `at_least` is a count from 1 on",
        "20:18: the label `alertname` is set by the rule's name",
        "20:42: `severity` is text, not a number",
        "21:18: `no_data` is ok, keep or alert",
        "22:5: the group `one` is there twice",
        "23:5: the group has no `name`",
        "24:1: unknown key `extra` in the file",
    ] {
        assert!(
            found.iter().any(|fault| fault.starts_with(expected)),
            "{expected}\nis not in\n{}",
            found.join("\n")
        );
    }
    assert!(found.is_sorted_by_key(|fault| fault.split(':').next().unwrap().parse::<u64>().unwrap()));
}

#[test]
fn what_is_no_yaml_or_too_much_of_it_is_told() {
    assert!(faults("groups: [")[0].contains("no YAML"));
    assert!(faults("groups:\n- name: a\n- name: [")[0].starts_with("3:"));
    assert!(faults("- a")[0].contains("the file is a map, not a list"));
    assert!(faults(&format!("groups: {}{}", "[".repeat(60), "]".repeat(60)))[0].len() > 5);
    assert!(faults(&" ".repeat(2 << 20))[0].contains("the limit is 1048576"));
    // A bomb of aliases is refused by the parser's budget.
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
        + &(0..8)
            .map(|n| {
                let (from, to) = (char::from(b'a' + n), char::from(b'b' + n));
                format!(
                    "{to}: &{to} [*{from},*{from},*{from},*{from},*{from},*{from},*{from},*{from},*{from}]\n"
                )
            })
            .collect::<String>();
    assert!(RuleFile::read(&bomb).is_err());
    assert_eq!(RuleFile::read("groups: []").unwrap(), RuleFile::default());
}
