{{- /* What each pod of linewatch has. All take (list $ account component). */ -}}

{{- define "linewatch.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.podSecurity.user }}
runAsGroup: {{ .Values.podSecurity.group }}
fsGroup: {{ .Values.podSecurity.group }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "linewatch.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "linewatch.env" -}}
{{- $ := index . 0 -}}
- {name: LINEWATCH_CONFIG, value: /etc/linewatch/settings/linewatch.yaml}
{{- range (index $.Values.accounts (index . 1)).keys }}
- {name: {{ printf "LINEWATCH_%s_FILE" (. | replace "." "__" | upper) }}, value: /etc/linewatch/account/{{ . }}}
{{- end }}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
# Replicas at 15, Ray's default, would stand still beside any busy process of the node.
- {name: RAY_worker_niceness, value: "0"}
{{- if eq (index . 2) "schedule" }}
- {name: LINEWATCH_TRAINING__METRICS_HOST, value: 0.0.0.0}
- {name: LINEWATCH_TRAINING__METRICS_PORT, value: {{ $.Values.serving.metricsPort | quote }}}
{{- end }}
{{- with $.Values.pods.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "linewatch.mounts" -}}
{{- $ := index . 0 -}}
- {name: settings, mountPath: /etc/linewatch/settings, readOnly: true}
- {name: account, mountPath: /etc/linewatch/account, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- range $.Values.certificates }}
- {name: {{ .name }}, mountPath: /etc/linewatch/{{ .name }}, readOnly: true}
{{- end }}
{{- if $.Values.strimzi.enabled }}
- {name: kafka-ca, mountPath: /etc/linewatch/kafka-ca, readOnly: true}
- {name: kafka-user, mountPath: /etc/linewatch/kafka-user, readOnly: true}
{{- end }}
{{- with $.Values.pods.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "linewatch.volumes" -}}
{{- $ := index . 0 -}}
{{- $account := index $.Values.accounts (index . 1) -}}
- {name: settings, configMap: {name: {{ $.Release.Name }}-settings}}
- name: account
  secret:
    secretName: {{ $account.secret }}
    items:
    {{- range $account.keys }}
    - {key: {{ . | quote }}, path: {{ . | quote }}}
    {{- end }}
- {name: tmp, emptyDir: {sizeLimit: {{ if eq (index . 2) "fit" }}{{ $.Values.fitting.scratch }}{{ else }}4Gi{{ end }}}}
# Ray's object store: what lies there counts as memory of the container.
- {name: shm, emptyDir: {medium: Memory}}
{{- range $.Values.certificates }}
- name: {{ .name }}
  {{- if .secret }}
  secret: {secretName: {{ .secret }}}
  {{- else }}
  configMap: {name: {{ .configMap }}}
  {{- end }}
{{- end }}
{{- if $.Values.strimzi.enabled }}
- {name: kafka-ca, secret: {secretName: {{ $.Values.strimzi.name }}-cluster-ca-cert}}
- {name: kafka-user, secret: {secretName: {{ $.Release.Name }}-{{ index . 1 }}}}
{{- end }}
{{- with $.Values.pods.volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Metadata of a pod. */ -}}
{{- define "linewatch.podMeta" -}}
{{- $ := index . 0 -}}
labels:
  {{- include "linewatch.picks" (list $ (index . 2)) | nindent 2 }}
{{- /* Settings are read when a process starts: pods are made anew where they change. Replicas have theirs from Serve. */}}
{{- $annotations := deepCopy $.Values.pods.annotations }}
{{- if not (has (index . 2) (list "head" "replica")) }}
{{- $_ := set $annotations "linewatch/settings" (include "linewatch.settings" (list $) | sha256sum | trunc 16) }}
{{- end }}
{{- with $annotations }}
annotations: {{ toJson . }}
{{- end }}
{{- end }}

{{- /* What stands in each pod's spec beside its containers. */ -}}
{{- define "linewatch.podSpec" -}}
{{- $ := index . 0 -}}
serviceAccountName: {{ $.Release.Name }}
{{- with $.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
enableServiceLinks: false
securityContext: {{ include "linewatch.podSecurity" $ | nindent 2 }}
volumes: {{ include "linewatch.volumes" . | nindent 2 }}
{{- end }}

{{- /* What stands in each container beside its command. */ -}}
{{- define "linewatch.container" -}}
{{- $ := index . 0 -}}
image: {{ include "linewatch.image" $ }}
imagePullPolicy: {{ $.Values.image.pullPolicy }}
securityContext: {{ include "linewatch.containerSecurity" $ | nindent 2 }}
env: {{ include "linewatch.env" . | nindent 2 }}
volumeMounts: {{ include "linewatch.mounts" . | nindent 2 }}
{{- end }}
