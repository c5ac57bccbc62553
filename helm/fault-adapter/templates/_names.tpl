{{- define "fault-adapter.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/*
Labels of an object. Takes (dict "root" $ "role" "worker"), perhaps with "more" of its own, which win over those for all:
a label that is there twice is refused by strict readers. A version with a + (Flux adds the commit to it) is no label.
*/}}
{{- define "fault-adapter.labels" -}}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" -}}
{{- $own := dict "app.kubernetes.io/managed-by" .root.Release.Service "helm.sh/chart" $chart -}}
{{- include "fault-adapter.podLabels" . | fromYaml | mergeOverwrite $own | toYaml -}}
{{- end -}}

{{/* Labels of a pod: without the chart's version, which would start all pods anew at each. */}}
{{- define "fault-adapter.podLabels" -}}
{{- $own := include "fault-adapter.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- mergeOverwrite $own (default dict .root.Values.labels) (default dict .more) | toYaml -}}
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
