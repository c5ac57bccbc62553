{{/*
A role's settings as a YAML map of variables. Takes (dict "root" $ "role" "worker"); role "" is no role's in particular.
*/}}
{{- define "fault-adapter.settings" -}}
{{- $settings := deepCopy .root.Values.settings -}}
{{- if .role -}}{{- $settings = mergeOverwrite $settings (deepCopy (index .root.Values .role).settings) -}}{{- end -}}
{{- include "fault-adapter.leaves" (dict "name" "ADAPTER" "value" $settings) -}}
{{- end -}}

{{/* Sections become parts of a name. Some values are objects themselves. */}}
{{- define "fault-adapter.leaves" -}}
{{- $objects := list "ADAPTER_KAFKA__PROPERTIES" "ADAPTER_KAFKA__PROPERTIES_FILES" "ADAPTER_SUPPLIER__SOAP_ACTIONS" "ADAPTER_SUPPLIER__DOUBT_LIMITS" -}}
{{- $name := .name -}}
{{- if and (kindIs "map" .value) (not (has $name $objects)) -}}
{{- range $key, $value := .value -}}
{{- $separator := ternary "_" "__" (eq $name "ADAPTER") -}}
{{- include "fault-adapter.leaves" (dict "name" (printf "%s%s%s" $name $separator (upper $key)) "value" $value) -}}
{{- end -}}
{{- else if kindIs "map" .value }}
{{ $name }}: {{ toJson .value | quote }}
{{- else if kindIs "slice" .value }}
{{ $name }}: {{ join (ternary ";" "," (eq $name "ADAPTER_SERVER__ALLOWED_SUBJECTS")) .value | quote }}
{{- else if kindIs "float64" .value }}
{{ $name }}: {{ if eq .value (floor .value) }}{{ int64 .value | toString | quote }}{{ else }}{{ toString .value | quote }}{{ end }}
{{- else if not (kindIs "invalid" .value) }}
{{ $name }}: {{ toString .value | quote }}
{{- end -}}
{{- end -}}
