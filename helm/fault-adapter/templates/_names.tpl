{{- define "fault-adapter.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of an object. Takes (dict "root" $ "role" "worker"). */}}
{{- define "fault-adapter.labels" -}}
{{ include "fault-adapter.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
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
