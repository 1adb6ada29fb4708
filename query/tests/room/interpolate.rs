//! Queries of dashboards as Grafana sends them.

/// What Grafana makes of a query before it sends it, for the time between two times.
pub(crate) fn interpolated(query: &str, from: &str, to: &str) -> String {
    let mut text = query.to_owned();
    for (from, to) in [
        ("${service:sqlstring}", "'web','db'"),
        ("${level:sqlstring}", "'info','error'"),
        ("${rule:sqlstring}", "'email','iban'"),
        ("${severity:sqlstring}", "'high','low'"),
        ("${text:sqlstring}", "''"),
        ("$__interval", "1m"),
    ] {
        text = text.replace(from, to);
    }
    let (from, to) = (&format!("'{from}'"), &format!("'{to}'"));
    for (macro_name, made) in [
        (
            "$__timeFilter(",
            (|column: &str, from: &str, to: &str| format!("{column} BETWEEN {from} AND {to}"))
                as fn(&str, &str, &str) -> String,
        ),
        ("$__timeGroupAlias(", |arguments, _, _| {
            let column = arguments.split(',').next().unwrap_or_default().trim();
            format!("time_bucket('60.000s',{column}) AS \"time\"")
        }),
    ] {
        while let Some((before, rest)) = text.split_once(macro_name) {
            let (arguments, after) = rest.split_once(')').expect("a macro of Grafana's ends");
            text = format!("{before}{}{after}", made(arguments, from, to));
        }
    }
    assert!(!text.contains('$'), "{text} still has something of Grafana's in it");
    text
}
