{{- define "tallygate.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "tallygate.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tallygate.labels" -}}
{{ include "tallygate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* How long a server that ends may take: as app/config_sections.py has it where the configuration says nothing. */}}
{{- define "tallygate.endsS" -}}
{{- $server := default dict .Values.config.server -}}
{{- $notice := hasKey $server "drain_notice_s" | ternary $server.drain_notice_s 1 -}}
{{- $drain := hasKey $server "drain_s" | ternary $server.drain_s 15 -}}
{{- addf $notice $drain 5 .Values.preStopS -}}
{{- end }}
