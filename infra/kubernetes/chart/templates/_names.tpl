{{- define "linewatch.labels" -}}
app.kubernetes.io/name: linewatch
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* What a pod is picked by. (list $ "replica") */ -}}
{{- define "linewatch.picks" -}}
app.kubernetes.io/name: linewatch
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "linewatch.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* Settings as linewatch reads them: those of the values, what the chart decides, and Strimzi's. (list $ account) */ -}}
{{- define "linewatch.settings" -}}
{{- $ := index . 0 -}}
{{- $v := $.Values -}}
{{- $settings := deepCopy $v.settings -}}
{{- $serving := dict "host" "0.0.0.0" "port" (int $v.serving.port) "replicas" (int $v.serving.replicas) "cpus_per_replica" $v.serving.cpusPerReplica "gpus_per_replica" $v.serving.gpusPerReplica "allow_anonymous" $v.serving.allowAnonymous -}}
{{- with $v.serving.maxReplicas }}{{ $_ := set $serving "max_replicas" (int .) }}{{ end -}}
{{- with $v.serving.maxReplicasPerNode }}{{ $_ := set $serving "max_replicas_per_node" (int .) }}{{ end -}}
{{- $settings = mergeOverwrite $settings (dict "serving" $serving) -}}
{{- if $v.strimzi.enabled -}}
{{- $kafka := dict "bootstrap_servers" (printf "%s-kafka-bootstrap:9093" $v.strimzi.name) "security_protocol" "SSL" "ca_file" "/etc/linewatch/kafka-ca/ca.crt" "cert_file" "/etc/linewatch/kafka-user/user.crt" "key_file" "/etc/linewatch/kafka-user/user.key" -}}
{{- $settings = mergeOverwrite $settings (dict "kafka" $kafka) -}}
{{- end -}}
{{ toYaml $settings }}
{{- end }}
