{{- define "fault-adapter.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of an object. Takes (dict "root" $ "role" "worker"). A version with a + (Flux adds the commit to it) is no label. */}}
{{- define "fault-adapter.labels" -}}
{{ include "fault-adapter.podLabels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels of a pod: without the chart's version, which would start all pods anew at each. */}}
{{- define "fault-adapter.podLabels" -}}
{{ include "fault-adapter.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fault-adapter.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "fault-adapter.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}{{ $image.repository }}@{{ $image.digest }}
{{- else -}}{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}{{- end -}}
{{- end -}}

{{/* Name of the Secret with a role's certificate, empty without one. */}}
{{- define "fault-adapter.certificate" -}}
{{- $tls := (index .root.Values .role).tls -}}
{{- if $tls.certManager.enabled -}}{{ include "fault-adapter.name" .root }}-{{ .role }}-tls{{- else -}}{{ $tls.secret }}{{- end -}}
{{- end -}}
