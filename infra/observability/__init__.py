"""What Prometheus and Grafana are given: rules, dashboards, and a check that a real line answers all of it."""
