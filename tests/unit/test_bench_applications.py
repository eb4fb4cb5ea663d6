"""What clients of servers print is read right, and the servers keep to themselves."""

import applications
import pytest
from applications import Load

REDIS = """\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"GET","74074.07","0.146","0.048","0.143","0.191","0.255","0.503"
"""
WRK = """\
Running 1s test @ http://127.0.0.1:8080/index.html
  1 threads and 20 connections
  Latency Distribution
     50%  411.00us
     99%    {p99}
  36100 requests in 1.00s, 44.50MB read
Requests/sec:  36064.32
Transfer/sec:     44.46MB
"""
PGBENCH = """\
transaction type: <builtin: select only>
latency average = 0.345 ms
tps = 11595.123456 (without initial connection time)
"""


def test_redis_benchmark_is_read():
    """Requests a second, and the p99 in milliseconds."""
    assert applications.parse_redis(REDIS) == Load(74_074.07, 0.255)


@pytest.mark.parametrize(("p99", "ms"), [("950.00us", 0.95), ("3.21ms", 3.21), ("1.50s", 1_500.0)])
def test_wrk_is_read(p99, ms):
    """Its latencies have units of their own."""
    load = applications.parse_wrk(WRK.format(p99=p99))
    assert load == Load(36_064.32, pytest.approx(ms))


def test_pgbench_is_read():
    """The p99 comes from its log, which is in microseconds."""
    log = "".join(f"0 {number} {number * 1_000} 0 1764086400 12345\n" for number in range(101))
    assert applications.parse_pgbench(PGBENCH, log) == Load(11_595.123456, 99.0)


@pytest.mark.parametrize(
    ("parse", "texts"), [(applications.parse_wrk, ("",)), (applications.parse_pgbench, ("", ""))]
)
def test_no_result_is_a_problem_that_is_said(parse, texts):
    """The row of the table says so then."""
    with pytest.raises(RuntimeError, match="printed no result"):
        parse(*texts)


def test_servers_listen_at_loopback_only(tmp_path):
    """Redis and nginx by address; PostgreSQL has no address at all."""
    redis, nginx, postgres = applications.Redis(), applications.Nginx(), applications.PostgreSql()
    for server in (redis, nginx):
        server.prepare(tmp_path)
    postgres.folder, postgres.port = tmp_path, 1
    assert redis.command()[2:4] == ["--bind", "127.0.0.1"]
    assert f"listen 127.0.0.1:{nginx.port};" in (tmp_path / "nginx.conf").read_text(encoding="utf-8")
    assert "listen_addresses=" in postgres.command()
