{{- /* What Ray Serve runs: the same as `linewatch serve` sends (pipeline/serving/deployment.py); a test compares them. */ -}}
{{- define "linewatch.serveConfig" -}}
{{- $v := .Values -}}
proxy_location: EveryNode
http_options: {host: 0.0.0.0, port: {{ $v.serving.port }}}
logging_config: {enable_access_log: false}
applications:
- name: linewatch
  route_prefix: /
  import_path: pipeline.serving.deployment:build
  args:
    exactly_once: {{ ne ((($v.settings).kafka).delivery | default "exactly_once") "at_least_once" }}
    generation: {{ $v.serving.generation | quote }}
    settings: {{ include "linewatch.settings" (list .) | nindent 6 }}
  deployments:
  - name: Inspection
    max_ongoing_requests: 16
    health_check_period_s: 5
    health_check_timeout_s: 15
    graceful_shutdown_timeout_s: 35
    ray_actor_options:
      num_cpus: {{ $v.serving.cpusPerReplica }}
      num_gpus: {{ $v.serving.gpusPerReplica }}
      runtime_env: {env_vars: {LINEWATCH_METRICS_FOLDER: /tmp/linewatch-metrics}}
    {{- with $v.serving.maxReplicasPerNode }}
    max_replicas_per_node: {{ . }}
    {{- end }}
    {{- if $v.serving.maxReplicas }}
    num_replicas: auto
    autoscaling_config:
      min_replicas: {{ $v.serving.replicas }}
      max_replicas: {{ $v.serving.maxReplicas }}
      upscale_delay_s: {{ (($v.settings).serving).upscale_delay_s | default 3.0 }}
      downscale_delay_s: {{ (($v.settings).serving).downscale_delay_s | default 60.0 }}
      policy:
        policy_function: pipeline.serving.autoscaling:LagPolicy
        policy_kwargs:
          drain_s: {{ (($v.settings).serving).drain_s | default 30.0 }}
          partitions: {{ (($v.settings).topics).partitions | default 8 }}
    {{- else }}
    num_replicas: {{ $v.serving.replicas }}
    {{- end }}
{{- end }}
